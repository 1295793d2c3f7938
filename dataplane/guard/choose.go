package guard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// VirtualMAC returns the MAC address of uvs's own for an interface: locally administered and the same at every start, as
// long as interface, machine and instance (any name, or none) are the same.
func VirtualMAC(iface, instance string) (packet.MAC, error) {
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return packet.MAC{}, fmt.Errorf("interface %s: %w", iface, err)
	}
	id := l.Attrs().PermHWAddr
	if len(id) == 0 {
		id = l.Attrs().HardwareAddr // virtual interfaces have no other; it lasts as long as they do
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		machine = nil // the interface's address tells most machines apart
	}
	return virtualMAC(id, machine, instance), nil
}

func virtualMAC(id net.HardwareAddr, machine []byte, instance string) packet.MAC {
	h := sha256.Sum256(fmt.Appendf(nil, "uvs\n%x\n%s\n%s", []byte(id), machine, instance))
	return packet.MAC{0x02, 0x75, h[0], h[1], h[2], h[3]} // 02: locally administered, unicast
}

// IsVirtualMAC says that an address looks like one of VirtualMAC's, of whatever director's.
func IsVirtualMAC(m packet.MAC) bool { return m[0] == 0x02 && m[1] == 0x75 }

// facts are what the mode of an interface depends on.
type facts struct {
	kind     string // of the link, as netlink has it; "device" for hardware
	passthru bool   // of a macvlan
	driver   string
	wifi     bool
	lower    *facts // what a VLAN interface lies on
}

// clouds are the drivers of networks that deliver frames to the interface's own address only.
var clouds = map[string]string{
	"ena": "AWS", "gve": "Google Cloud", "hv_netvsc": "Hyper-V and Azure", "mana": "Azure", "vmxnet3": "VMware",
}

// judge decides by the kind of interface. sure is false where only a probe can tell.
func (f *facts) judge() (mode Mode, why string, sure bool) {
	switch {
	case f.lower != nil:
		mode, why, sure = f.lower.judge()
		return mode, why + ", on which this VLAN lies", sure
	case (f.kind == "macvlan" || f.kind == "macvtap") && f.passthru:
		return Virtual, "a macvlan in passthru mode takes frames to any MAC address", true
	case f.kind == "macvlan" || f.kind == "macvtap":
		return InterfaceMAC, "a macvlan gets no frames to another MAC address than its own", true
	case f.kind == "ipvlan" || f.kind == "ipvtap":
		return InterfaceMAC, "ipvlan interfaces share one MAC address", true
	case f.wifi:
		return InterfaceMAC, "a wireless station has one MAC address", true
	case clouds[f.driver] != "":
		return InterfaceMAC, fmt.Sprintf("driver %s: networks of %s deliver frames to one MAC address", f.driver, clouds[f.driver]), true
	case slices.Contains([]string{"veth", "bridge", "tuntap", "dummy", "vxlan", "gretap", "ip6gretap", "geneve"}, f.kind):
		return Virtual, fmt.Sprintf("a %s takes frames to any MAC address", f.kind), true
	}
	what := f.kind
	if f.driver != "" {
		what = "driver " + f.driver
	}
	return Virtual, what, false
}

// ChooseMode decides for Auto. Where the kind of interface doesn't tell, as with hardware whose switch may or may not take
// frames of a second address, it asks the neighbours by ARP from mac, the would-be virtual address: those in neighbours
// and some that the kernel knows. That takes up to a second and a half. why says in words what decided.
func ChooseMode(ctx context.Context, iface string, mac packet.MAC, neighbours []netip.Addr) (mode Mode, why string, err error) {
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return Auto, "", fmt.Errorf("interface %s: %w", iface, err)
	}
	f, err := look(l, 0)
	if err != nil {
		return Auto, "", err
	}
	mode, why, sure := f.judge()
	if sure {
		return mode, why, nil
	}
	targets := append(slices.Clone(neighbours), known(l)...)
	own, virtual, err := probeMAC(ctx, iface, mac, targets[:min(len(targets), maxTargets)])
	switch {
	case err != nil:
		return mode, fmt.Sprintf("%s; not probed: %v", why, err), nil
	case own && !virtual:
		return InterfaceMAC, why + "; neighbours answer the interface's MAC address, but not a second one: the switch or the hypervisor holds them back", nil
	case virtual:
		return Virtual, why + "; neighbours answer a second MAC address", nil
	default:
		return Virtual, why + "; no neighbour answered a probe: not proved", nil
	}
}

// look gathers the facts about an interface.
func look(l netlink.Link, depth int) (*facts, error) {
	f := &facts{kind: l.Type(), driver: driver(l.Attrs().Name), wifi: wireless(l.Attrs().Name)}
	switch l := l.(type) {
	case *netlink.Macvlan:
		f.passthru = l.Mode == netlink.MACVLAN_MODE_PASSTHRU
	case *netlink.Macvtap:
		f.passthru = l.Mode == netlink.MACVLAN_MODE_PASSTHRU
	case *netlink.Vlan:
		lower, err := netlink.LinkByIndex(l.ParentIndex)
		if err != nil || depth > 4 {
			return f, nil // in another namespace
		}
		if f.lower, err = look(lower, depth+1); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// driver is the name of an interface's driver, empty if it has none to name.
func driver(iface string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, iface)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}

func wireless(iface string) bool {
	if strings.ContainsRune(iface, '/') {
		return false
	}
	_, err := os.Stat("/sys/class/net/" + iface + "/phy80211")
	return err == nil
}

// maxTargets is how many neighbours a probe asks: one that answers is enough.
const maxTargets = 8

// known are neighbours of the kernel's that were there lately.
func known(l netlink.Link) (addrs []netip.Addr) {
	list, err := netlink.NeighList(l.Attrs().Index, unix.AF_INET)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil
	}
	for _, n := range list {
		if a, ok := netip.AddrFromSlice(n.IP.To4()); ok && n.State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY|netlink.NUD_PROBE) != 0 {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// probeMAC asks neighbours from the interface's MAC address and from a second one, and says which of the two got answers.
func probeMAC(ctx context.Context, iface string, mac packet.MAC, targets []netip.Addr) (own, virtual bool, err error) {
	if len(targets) == 0 {
		return false, false, nil
	}
	p, err := openProber(iface)
	if err != nil {
		return false, false, err
	}
	defer p.close()
	if err := p.join(iface, mac); err != nil {
		return false, false, err
	}
	for try := 0; try < 3 && ctx.Err() == nil; try++ {
		for _, t := range targets {
			if !t.Is4() {
				continue
			}
			if err := errors.Join(p.ask(p.mac, t), p.ask(mac, t)); err != nil {
				return own, virtual, err
			}
		}
		err := p.listen(ctx, time.Now().Add(500*time.Millisecond), func(r reply) bool {
			own, virtual = own || r.to == p.mac, virtual || r.to == mac
			return !virtual
		})
		if err != nil || virtual {
			return own, virtual, err
		}
	}
	return own, virtual, nil
}
