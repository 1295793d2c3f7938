package lab

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The four ethtool commands used here, of linux/ethtool.h. Their argument is a struct that begins with the command:
//
//	GSSET_INFO  cmd, reserved uint32; mask uint64 of string sets; count uint32
//	GSTRINGS    cmd, set, count uint32; then count names of 32 bytes
//	GFEATURES   cmd, blocks uint32; then blocks of available, requested, active, never-changed uint32
//	SFEATURES   cmd, blocks uint32; then blocks of valid, requested uint32
//
// Bit b of block i is the feature with the name number 32*i+b. All in the machine's byte order.
const (
	stringSetFeatures = 4  // ETH_SS_FEATURES
	featureNameLen    = 32 // ETH_GSTRING_LEN
)

// feature is one switchable property of an interface, as `ethtool -k` shows it.
type feature struct {
	bit       int
	available bool // may be changed
	active    bool
}

// ethtoolSocket runs f with a socket inside the namespace to send ethtool requests through.
func (n *Namespace) ethtoolSocket(f func(fd int) error) error {
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket in %s: %w", n, err)
		}
		defer unix.Close(fd)
		return f(fd)
	})
}

// features reads an interface's features by their kernel names, such as "tx-tcp-segmentation".
func features(fd int, ifname string) (map[string]feature, error) {
	ne := binary.NativeEndian
	info := make([]byte, 20)
	ne.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	ne.PutUint64(info[8:], 1<<stringSetFeatures)
	if err := ethtoolIoctl(fd, ifname, info); err != nil {
		return nil, err
	}
	count := int(ne.Uint32(info[16:]))
	blocks := (count + 31) / 32

	names := make([]byte, 12+count*featureNameLen)
	ne.PutUint32(names, unix.ETHTOOL_GSTRINGS)
	ne.PutUint32(names[4:], stringSetFeatures)
	ne.PutUint32(names[8:], uint32(count))
	if err := ethtoolIoctl(fd, ifname, names); err != nil {
		return nil, err
	}
	state := make([]byte, 8+blocks*16)
	ne.PutUint32(state, unix.ETHTOOL_GFEATURES)
	ne.PutUint32(state[4:], uint32(blocks))
	if err := ethtoolIoctl(fd, ifname, state); err != nil {
		return nil, err
	}

	all := make(map[string]feature, count)
	for i := range count {
		name := unix.ByteSliceToString(names[12+i*featureNameLen:][:featureNameLen])
		if name == "" {
			continue // a number the kernel has not given away
		}
		block, bit := state[8+i/32*16:], uint32(1)<<(i%32)
		all[name] = feature{
			bit:       i,
			available: ne.Uint32(block)&bit != 0,
			active:    ne.Uint32(block[8:])&bit != 0,
		}
	}
	return all, nil
}

// setFeatures asks for features to be on or off. The kernel may change less than asked, and others beside.
func setFeatures(fd int, ifname string, known map[string]feature, want map[string]bool) error {
	ne := binary.NativeEndian
	blocks := 0
	for _, f := range known {
		blocks = max(blocks, f.bit/32+1)
	}
	req := make([]byte, 8+blocks*8)
	ne.PutUint32(req, unix.ETHTOOL_SFEATURES)
	ne.PutUint32(req[4:], uint32(blocks))
	for name, on := range want {
		f, ok := known[name]
		if !ok {
			return fmt.Errorf("no feature %q", name)
		}
		block, bit := req[8+f.bit/32*8:], uint32(1)<<(f.bit%32)
		ne.PutUint32(block, ne.Uint32(block)|bit)
		if on {
			ne.PutUint32(block[4:], ne.Uint32(block[4:])|bit)
		}
	}
	return ethtoolIoctl(fd, ifname, req)
}

// Features returns which of an interface's features are on, by the kernel's names ("rx-gro", "tx-tcp-segmentation").
func (n *Namespace) Features(ifname string) (map[string]bool, error) {
	on := map[string]bool{}
	err := n.ethtoolSocket(func(fd int) error {
		all, err := features(fd, ifname)
		for name, f := range all {
			on[name] = f.active
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("features of %s in %s: %w", ifname, n, err)
	}
	return on, nil
}

// SetFeatures switches single features of an interface by the kernel's names and checks by reading them back. It
// fails if one stays as it was.
func (n *Namespace) SetFeatures(ifname string, want map[string]bool) error {
	err := n.ethtoolSocket(func(fd int) error {
		known, err := features(fd, ifname)
		if err != nil {
			return err
		}
		return changeFeatures(fd, ifname, known, want)
	})
	if err != nil {
		return fmt.Errorf("set features of %s in %s: %w", ifname, n, err)
	}
	return nil
}

// changeFeatures sets features and reads them back.
func changeFeatures(fd int, ifname string, known map[string]feature, want map[string]bool) error {
	if err := setFeatures(fd, ifname, known, want); err != nil {
		return err
	}
	now, err := features(fd, ifname)
	if err != nil {
		return err
	}
	var stuck []string
	for name, on := range want {
		if now[name].active != on {
			stuck = append(stuck, name)
		}
	}
	if len(stuck) > 0 {
		slices.Sort(stuck)
		return fmt.Errorf("the interface does not change %s", strings.Join(stuck, ", "))
	}
	return nil
}

// SetOffloads switches transmit checksumming, segmentation (TSO, GSO, UDP) and GRO of an interface. Off, every frame
// it carries is at most MTU long and has complete checksums; it fails if the interface keeps one of them on. A new
// veth has them on but for GRO, which on switches on as well: then single segments arriving are merged too. A macvlan
// keeps its own on for ever; switched off below it, the frames are complete by the time they reach the wire.
func (n *Namespace) SetOffloads(ifname string, on bool) error {
	err := n.ethtoolSocket(func(fd int) error {
		known, err := features(fd, ifname)
		if err != nil {
			return err
		}
		want := map[string]bool{}
		for name, f := range known {
			if isOffload(name) && (f.available && !(on && isRareOffload(name)) || !on && f.active) {
				want[name] = on
			}
		}
		return changeFeatures(fd, ifname, known, want)
	})
	if err != nil {
		return fmt.Errorf("set offloads of %s in %s: %w", ifname, n, err)
	}
	return nil
}

// isOffload reports whether a feature makes frames that a wire could not carry, or merges them into such.
func isOffload(name string) bool {
	switch name {
	case "tx-gso-robust": // says that a driver checks headers; does nothing by itself
		return false
	case "rx-lro", "tx-scatter-gather":
		return true
	}
	return strings.HasPrefix(name, "tx-checksum-") || strings.HasSuffix(name, "-segmentation") ||
		strings.HasPrefix(name, "tx-gso-") || strings.HasPrefix(name, "rx-gro") || name == "rx-udp-gro-forwarding"
}

// isRareOffload reports whether an offload is off on ordinary hosts even where offloads are on.
func isRareOffload(name string) bool {
	switch name {
	case "rx-gro-list", "rx-udp-gro-forwarding", "tx-gso-list", "rx-lro":
		return true
	}
	return false
}
