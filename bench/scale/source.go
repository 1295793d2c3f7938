package scale

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"uvs/dataplane/link"
	"uvs/packet"
)

// sink is a link that receives nothing and takes everything.
type sink struct {
	fd int // what is polled, -1 for nothing
	// flushed is told of each transmission that had frames.
	flushed func()
	queued  int
}

func (*sink) Recv([]link.Frame) int { return 0 }
func (*sink) Release()              {}
func (s *sink) Send(_, _ []byte)    { s.queued++ }
func (s *sink) Flush() {
	if s.queued > 0 && s.flushed != nil {
		s.flushed()
	}
	s.queued = 0
}
func (s *sink) FD() int         { return s.fd }
func (*sink) Stats() link.Stats { return link.Stats{} }
func (*sink) Close() error      { return nil }

// source is a link that makes frames from clients, each in the next slot of a ring as a real one's memory is used.
type source struct {
	sink
	template []byte // virtio-net header and frame
	slots    [][]byte
	slot     int
	next     int
	// number returns the service of the n-th frame, its client and TCP flags; ok is false while there is no frame yet.
	number func(n int) (service, client int, flags uint8, ok bool)
}

const (
	slotCount, slotSize = 4096, 2048
	batch               = 64
)

func newSource(number func(n int) (service, client int, flags uint8, ok bool)) *source {
	s := &source{sink: sink{fd: -1}, number: number, template: make([]byte, packet.VnetLen+packet.EthLen+40)}
	eth := s.template[packet.VnetLen:]
	copy(eth, ownMAC[0][:])
	copy(eth[6:], clientMAC[:])
	binary.BigEndian.PutUint16(eth[12:], packet.EtherIPv4)
	ip := eth[packet.EthLen:]
	ip[0], ip[8], ip[9] = 0x45, 64, packet.ProtoTCP
	binary.BigEndian.PutUint16(ip[2:], 40)
	ip[6] = 0x40                      // don't fragment
	ip[20+12], ip[20+14] = 5<<4, 0xff // the header's length, some window; nobody looks at the checksum
	mem := make([]byte, slotCount*slotSize)
	for i := range slotCount {
		s.slots = append(s.slots, mem[i*slotSize:(i+1)*slotSize])
	}
	return s
}

// Recv implements link.Link.
func (s *source) Recv(frames []link.Frame) int {
	for i := range frames[:min(batch, len(frames))] {
		service, client, flags, ok := s.number(s.next)
		if !ok {
			return i
		}
		buf := s.slots[s.slot][:len(s.template)]
		copy(buf, s.template)
		f := flow(client)
		ip := buf[packet.VnetLen+packet.EthLen:]
		binary.BigEndian.PutUint32(ip[12:], f.Src.V4())
		binary.BigEndian.PutUint32(ip[16:], vipNet+uint32(service))
		binary.BigEndian.PutUint16(ip[20:], f.SrcPort)
		binary.BigEndian.PutUint16(ip[22:], 80)
		ip[33] = flags
		packet.FixIPv4Checksum(ip)
		frames[i] = link.Frame{Buf: buf}
		s.slot, s.next = (s.slot+1)%slotCount, s.next+1
	}
	return min(batch, len(frames))
}

// alwaysReadable is a descriptor that poll never waits for.
func alwaysReadable() (int, error) { return unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) }

// pace makes frames due at even intervals, and notes how long after that each has been sent on.
type pace struct {
	mu       sync.Mutex // over all below: the worker hands out, the measurement begins anew and reads
	start    time.Time
	interval time.Duration
	given    int // frames handed out
	sent     int
	late     []time.Duration
}

// begin starts anew, with room for that many frames.
func (p *pace) begin(interval time.Duration, room int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start, p.interval, p.given, p.sent, p.late = time.Now(), interval, 0, 0, make([]time.Duration, 0, room)
}

// lateness is how long each frame has taken so far.
func (p *pace) lateness() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.late)
}

// due says that another frame is to be handed out.
func (p *pace) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.start) < time.Duration(p.given)*p.interval || p.given == cap(p.late) {
		return false
	}
	p.given++
	return true
}

// flushed notes the frames that were on their way.
func (p *pace) flushed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Since(p.start)
	for ; p.sent < p.given; p.sent++ {
		p.late = append(p.late, now-time.Duration(p.sent)*p.interval)
	}
}
