package guard

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Severity says what a finding means for service.
type Severity uint8

// The severities.
const (
	Warn   Severity = iota // may be what the operator wants
	Refuse                 // uvsd cannot serve so
)

// Finding is something about the host that breaks or endangers service.
type Finding struct {
	Severity Severity
	// What is wrong, in one sentence without a full stop.
	What string
	// Remedy is the command or setting that mends it.
	Remedy string
}

// String is what is wrong and what to do.
func (f Finding) String() string {
	if f.Remedy == "" {
		return f.What
	}
	return f.What + "; remedy: " + f.Remedy
}

// CheckCapabilities looks whether the process may do what uvsd needs.
func CheckCapabilities() []Finding {
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_NET_RAW, "CAP_NET_RAW"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}} {
		if !capable(c.bit) {
			missing = append(missing, c.name)
		}
	}
	if missing == nil {
		return nil
	}
	return []Finding{{Refuse, "uvsd lacks " + strings.Join(missing, " and "),
		"run it as root, or: setcap cap_net_raw,cap_net_admin+ep " + executable()}}
}

func capable(bit uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return true // let the operation itself fail and say why
	}
	return data[bit/32].Effective>>(bit%32)&1 != 0
}

func executable() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return "uvsd"
}

// CheckInterfaces looks at the interfaces that uvsd attaches to, and at the gateway addresses that it is to own.
func CheckInterfaces(interfaces []Interface, gateways []Gateway) []Finding {
	var found []Finding
	mtus := make(map[int]string)
	for _, i := range interfaces {
		l, err := netlink.LinkByName(i.Name)
		if err != nil {
			found = append(found, Finding{Refuse, fmt.Sprintf("interface %s: %v", i.Name, err), "ip link shows those that exist"})
			continue
		}
		a := l.Attrs()
		switch {
		case a.EncapType != "ether" || len(a.HardwareAddr) != 6:
			found = append(found, Finding{Refuse, fmt.Sprintf("interface %s is not Ethernet", i.Name), ""})
		case a.Flags&unix.IFF_UP == 0:
			found = append(found, Finding{Warn, fmt.Sprintf("interface %s is down", i.Name), "ip link set " + i.Name + " up"})
		}
		if a.MasterIndex != 0 && l.Type() != "vrf" {
			if master, err := netlink.LinkByIndex(a.MasterIndex); err == nil && master.Type() != "vrf" {
				found = append(found, Finding{Warn, fmt.Sprintf("interface %s is a port of %s %s, which takes its frames", i.Name, master.Type(), master.Attrs().Name),
					"attach uvsd to " + master.Attrs().Name + " instead"})
			}
		}
		mtus[a.MTU] = i.Name
	}
	for _, g := range gateways {
		found = append(found, checkGateway(g)...)
	}
	if len(mtus) > 1 {
		found = append(found, Finding{Warn, "the interfaces have different MTUs: large packets are refused with ICMP where the way is narrower", "ip link set DEVICE mtu N"})
	}
	if ipvsServices() {
		found = append(found, Finding{Warn, "the kernel's own IPVS has virtual services on this host", "ipvsadm -C, for those that uvsd serves"})
	}
	return found
}

// checkGateway looks whether the host has a gateway address itself: its stack would answer what is sent through it.
func checkGateway(g Gateway) []Finding {
	on, ok := hostHas(g.Prefix.Addr())
	if !ok {
		return nil
	}
	return []Finding{{Refuse, fmt.Sprintf("gateway address %v is configured on the host, on %s", g.Prefix.Addr(), on),
		fmt.Sprintf("ip addr del %v dev %s", g.Prefix, on)}}
}

// CheckVIP looks whether the host has a virtual address itself. Its kernel then answers ARP for it, and what reaches it so is
// reset: every connection dies.
func CheckVIP(a netip.Addr) []Finding {
	on, ok := hostHas(a)
	if !ok {
		return nil
	}
	return []Finding{{Warn, fmt.Sprintf("virtual address %v is configured on the host, on %s: the kernel answers for it and resets its connections", a, on),
		fmt.Sprintf("ip addr del %v/32 dev %s (or with the prefix length it has there)", a, on)}}
}

// hostHas says on which interface the host has an address.
func hostHas(a netip.Addr) (iface string, ok bool) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return "", false
	}
	i := slices.IndexFunc(addrs, func(x netlink.Addr) bool {
		have, _ := netip.AddrFromSlice(x.IP)
		return have.Unmap() == a
	})
	if i < 0 {
		return "", false
	}
	if l, err := netlink.LinkByIndex(addrs[i].LinkIndex); err == nil {
		return l.Attrs().Name, true
	}
	return "an interface", true
}

// ipvsServices says that the kernel has IPVS and services in it.
func ipvsServices() bool {
	b, err := os.ReadFile("/proc/net/ip_vs")
	return err == nil && strings.Count(string(b), "\n") > 3
}
