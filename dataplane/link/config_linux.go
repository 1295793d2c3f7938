package link

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Kind is how a socket link moves frames.
type Kind uint8

// Kinds of a socket link. The zero value lets Open choose.
const (
	KindAuto     Kind = iota // the ring, or the simple link where the ring cannot be had
	KindRing                 // TPACKET_V2 rings both ways, sendmmsg out of the slots for super-frames
	KindSimple               // recvmmsg and sendmmsg
	KindTransmit             // sendmmsg alone: what OpenTx makes
)

var kindNames = [...]string{KindAuto: "auto", KindRing: "ring", KindSimple: "simple", KindTransmit: "transmit"}

// String is the kind's word on the command line: auto, ring, simple (or transmit).
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// ParseKind reads auto, ring or simple.
func ParseKind(s string) (Kind, error) {
	for k := KindAuto; k <= KindSimple; k++ {
		if s == kindNames[k] {
			return k, nil
		}
	}
	return 0, fmt.Errorf("link kind %q: want auto, ring or simple", s)
}

// Reasons why a link cannot be opened or has fallen silent. Errors of this package wrap them, with the interface's
// name and the remedy in the text.
var (
	ErrPermission  = errors.New("not permitted: needs CAP_NET_RAW")
	ErrNoInterface = errors.New("no such interface")
	ErrNotEthernet = errors.New("not an Ethernet interface")
	ErrDown        = errors.New("interface is down")
	ErrNoCarrier   = errors.New("interface has no carrier")
	// ErrGone says that the interface was removed or moved to another network namespace while the link was open.
	// The link stays silent for ever, even when an interface of that name appears: open another.
	ErrGone = errors.New("interface has disappeared")
)

// FanoutMode is how the kernel spreads frames over the links of one group (PACKET_FANOUT).
type FanoutMode uint16

// Modes of spreading.
const (
	FanoutHash     FanoutMode = unix.PACKET_FANOUT_HASH     // by addresses and ports, fragments by addresses alone
	FanoutLB       FanoutMode = unix.PACKET_FANOUT_LB       // in turn
	FanoutCPU      FanoutMode = unix.PACKET_FANOUT_CPU      // by the CPU that received the frame
	FanoutRollover FanoutMode = unix.PACKET_FANOUT_ROLLOVER // to the first with room
	FanoutRandom   FanoutMode = unix.PACKET_FANOUT_RND      // at random
	FanoutQueue    FanoutMode = unix.PACKET_FANOUT_QM       // by the interface's receive queue
	FanoutProgram  FanoutMode = unix.PACKET_FANOUT_CBPF     // by Fanout.Program
)

// Fanout makes several links share one interface's frames, each frame going to one of them. All members name the
// same group, mode and interface. The zero value is no sharing.
type Fanout struct {
	// Group is the group's number, unique in the network namespace; 0 means no fanout.
	Group uint16
	// Mode is how frames are spread; zero is FanoutHash.
	Mode FanoutMode
	// Program is the classic BPF program of FanoutProgram: its return value modulo the number of members picks the
	// member. Offset 0 is the network header.
	Program []unix.SockFilter
}

// Config says which interface a link is for and how it is set up. Zero fields take the defaults named.
type Config struct {
	// Interface is the interface's name; Index its number, used when the name is empty.
	Interface string
	Index     int
	// Kind is the mechanism; default KindAuto.
	Kind Kind
	// Fanout shares the interface with other links.
	Fanout Fanout
	// RingSlots is the ring's length in frames; default 4096, fewer where slots are large (16 MiB of memory, but at
	// least 256). Rounded up to whole blocks of memory.
	RingSlots int
	// SlotSize is the bytes per slot, kernel headers and headroom included; default 2048, more where the interface's
	// MTU asks for it. Rounded up to a power of two, or to whole pages from there on.
	SlotSize int
	// Batch is the frames per system call: receive buffers of the simple link, whole super-frames that the ring link
	// can hold between Recv and Release, messages per sendmmsg; default 64.
	Batch int
	// RecvBuffer is the bytes of kernel memory for frames waiting outside the ring: all frames of the simple link,
	// super-frames of the ring link; default 32 MiB. Without CAP_NET_ADMIN the system's limit (net.core.rmem_max)
	// caps it; a ring link then takes slots of 64 KiB instead.
	RecvBuffer int
	// SendBuffer is the bytes of kernel memory for frames on their way out; default 16 MiB.
	SendBuffer int
	// QdiscBypass sends past the interface's queueing discipline (PACKET_QDISC_BYPASS): invisible to captures, and a
	// full device queue is a drop.
	QdiscBypass bool
	// NoVnet does without virtio-net headers, as on a kernel that has none: super-frames and partial checksums then
	// arrive with nothing to tell them by, so the offloads at both ends must be off.
	NoVnet bool
	// Loopback allows the loopback interface. It looks like Ethernet with MAC addresses of zeros, and the host receives from
	// it whatever is sent.
	Loopback bool
	// Promiscuous asks for all frames on the segment, Unicast for those to these further MAC addresses.
	Promiscuous bool
	Unicast     [][6]byte
	// Filter is a classic BPF program that says which frames are received, as SetFilter; nil means all.
	Filter []unix.SockFilter
}

const (
	defaultSlots      = 4096
	defaultSlotSize   = 2048
	defaultBatch      = 64
	defaultRecvBuffer = 32 << 20
	defaultSendBuffer = 16 << 20

	ringBudget = 16 << 20 // bytes of ring memory by default
	minSlots   = 256
)

func (c Config) withDefaults() Config {
	if c.Batch <= 0 {
		c.Batch = defaultBatch
	}
	if c.RecvBuffer <= 0 {
		c.RecvBuffer = defaultRecvBuffer
	}
	if c.SendBuffer <= 0 {
		c.SendBuffer = defaultSendBuffer
	}
	return c
}

// Info is what a link turned out to be.
type Info struct {
	Name  string
	Index int
	MAC   [6]byte
	MTU   int // bytes, Ethernet header not counted, when the link was opened
	Kind  Kind
	// Reason says why KindAuto did not give the ring, or why a ring was given up while running.
	Reason string
	// Vnet says that frames carry real virtio-net headers both ways. Without it offloads must be off.
	Vnet bool
	// Slots and SlotSize are the ring's shape; zero for other kinds.
	Slots    int
	SlotSize int
	// RecvBuffer and SendBuffer are the bytes the kernel granted (it doubles what was asked).
	RecvBuffer int
	SendBuffer int
}
