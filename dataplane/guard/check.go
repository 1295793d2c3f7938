package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// Severity says what a Finding means for the start.
type Severity uint8

// The severities.
const (
	Warn   Severity = iota // service works, but not as it should
	Refuse                 // service would be broken
)

// String is "warn" or "refuse".
func (s Severity) String() string {
	if s == Refuse {
		return "refuse"
	}
	return "warn"
}

// Finding is something on the host that harms uvs.
type Finding struct {
	Severity Severity
	What     string // a sentence without its full stop
	Remedy   string // what to do about it: a command where there is one
	Offload  bool   // it is about super-frames or unfinished checksums that cannot be passed on
}

// String is the finding in a line.
func (f Finding) String() string { return f.What + "; remedy: " + f.Remedy }

// CheckConfig says what is going to run on the host.
type CheckConfig struct {
	Interfaces []CheckInterface
	// VIPs are virtual addresses; Gateways are addresses owned likewise. Neither may be the host's.
	VIPs     []netip.Addr
	Gateways []Gateway
	// ProbeTime is how long to wait for others that answer ARP for these addresses; 0 means a second, negative not to
	// ask.
	ProbeTime time.Duration
}

// CheckInterface is an interface that uvsd attaches to.
type CheckInterface struct {
	Name string
	Mode Mode // Virtual or InterfaceMAC
	// MAC is the address that uvs has there in mode Virtual.
	MAC packet.MAC
	// NoVnet says that its link works without virtio-net headers: super-frames and partial checksums cannot pass.
	NoVnet bool
}

// Check looks at everything: CheckHost and CheckAddresses.
func Check(ctx context.Context, cfg CheckConfig) []Finding {
	return append(CheckHost(cfg), CheckAddresses(ctx, cfg)...)
}

// findings collects.
type findings []Finding

func (f *findings) refuse(remedy, format string, args ...any) {
	*f = append(*f, Finding{Severity: Refuse, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (f *findings) warn(remedy, format string, args ...any) {
	*f = append(*f, Finding{Severity: Warn, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

// CheckHost finds what on the host would break or harm service, whatever the addresses. It looks at the calling thread's
// network namespace. rp_filter is none of it: the host's stack never sees the packets, or must not.
func CheckHost(cfg CheckConfig) []Finding {
	var f findings
	f.capabilities()
	mtus := make(map[string]int)
	sharing := ""
	for _, in := range cfg.Interfaces {
		l, err := netlink.LinkByName(in.Name)
		if err != nil {
			f.refuse("ip link shows the interfaces that exist here", "interface %s does not exist", in.Name)
			continue
		}
		if f.link(in, l) {
			mtus[in.Name] = l.Attrs().MTU
		}
		if in.Mode == InterfaceMAC {
			sharing = in.Name
		}
	}
	f.mtus(cfg.Interfaces, mtus)
	if on := forwarding(); sharing != "" && len(on) > 0 {
		c, err := nftables.New()
		if err == nil {
			_, err = c.ListTablesOfFamily(nftables.TableFamilyNetdev)
		}
		if err != nil {
			f.warn("modprobe nf_tables, or sysctl -w "+strings.Join(on, "=0 ")+"=0, or --mac virtual",
				"the kernel forwards packets (%s=1) and has no nftables to keep it off the answers of NAT real servers: clients would get them twice (%v)", strings.Join(on, "=1 "), err)
		}
	}
	f.ipvs(cfg.VIPs)
	return f
}

// forwarding is by which settings the kernel forwards packets.
func forwarding() (on []string) {
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if sysctl(name) == "1" {
			on = append(on, name)
		}
	}
	return on
}

// capabilities looks for what uvsd must be allowed to do.
func (f *findings) capabilities() {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return // what is missing will say so itself
	}
	f.lackOf(data[0].Effective)
}

func (f *findings) lackOf(effective uint32) {
	const remedy = "run uvsd as root, or setcap cap_net_raw,cap_net_admin+ep on its binary, or AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN in its unit"
	if effective&(1<<unix.CAP_NET_RAW) == 0 {
		f.refuse(remedy, "capability CAP_NET_RAW is missing: uvsd may not open packet sockets")
	}
	if effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		f.refuse(remedy, "capability CAP_NET_ADMIN is missing: uvsd may not have neighbours resolved or keep the host's stack off its packets")
	}
}

// link looks at one interface. It returns false if uvsd cannot attach to such a one at all.
func (f *findings) link(in CheckInterface, l netlink.Link) bool {
	a := l.Attrs()
	if len(a.HardwareAddr) != len(packet.MAC{}) || a.Flags&net.FlagLoopback != 0 {
		f.refuse("attach to an Ethernet interface", "interface %s is not Ethernet", in.Name)
		return false
	}
	if a.Flags&net.FlagUp == 0 {
		f.refuse("ip link set "+in.Name+" up", "interface %s is down", in.Name)
	} else if a.RawFlags&unix.IFF_LOWER_UP == 0 {
		f.warn("look at the cable, or the other end", "interface %s has no carrier", in.Name)
	}
	if a.MasterIndex != 0 {
		if m, err := netlink.LinkByIndex(a.MasterIndex); err == nil && (m.Type() == "bridge" || m.Type() == "bond" || m.Type() == "team") {
			f.warn("--interface "+m.Attrs().Name, "interface %s is a port of the %s %s, which handles its frames", in.Name, m.Type(), m.Attrs().Name)
		}
	}
	if in.Mode == Virtual {
		if facts, err := look(l, 0); err == nil {
			if mode, why, sure := facts.judge(); sure && mode == InterfaceMAC {
				f.refuse("--mac interface", "interface %s cannot have a virtual MAC address: %s", in.Name, why)
			}
		}
		if sysctl("net.ipv4.conf."+in.Name+".proxy_arp") == "1" || sysctl("net.ipv4.conf.all.proxy_arp") == "1" {
			f.warn("sysctl -w net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf."+in.Name+".proxy_arp=0",
				"the host may answer ARP for virtual addresses on %s in uvsd's place (proxy_arp)", in.Name)
		}
	}
	if in.NoVnet {
		f.offloads(in.Name, l)
	}
	return true
}

// offloads looks for what makes super-frames, where they cannot pass.
func (f *findings) offloads(name string, l netlink.Link) {
	defer func(before int) {
		for i := range (*f)[before:] {
			(*f)[before+i].Offload = true
		}
	}(len(*f))
	var on []string
	if v, err := ethtoolGet(name, ethtoolGetGRO); err == nil && v != 0 {
		on = append(on, "gro")
	}
	if v, err := ethtoolGet(name, ethtoolGetFlags); err == nil && v&ethtoolFlagLRO != 0 {
		on = append(on, "lro")
	}
	if len(on) > 0 {
		f.refuse("ethtool -K "+name+" "+strings.Join(on, " off ")+" off",
			"interface %s makes super-frames (%s), and its link has no virtio-net headers to pass them on", name, strings.Join(on, ", "))
	}
	if l.Type() == "veth" {
		f.warn("ethtool -K PEER tx off tso off, at the other end",
			"interface %s is a veth, whose peer sends frames with unfinished checksums, and its link has no virtio-net headers to tell them", name)
	}
}

func (f *findings) mtus(interfaces []CheckInterface, mtus map[string]int) {
	low, high := "", ""
	for _, in := range interfaces {
		m, ok := mtus[in.Name]
		if !ok {
			continue
		}
		if low == "" || m < mtus[low] {
			low = in.Name
		}
		if high == "" || m > mtus[high] {
			high = in.Name
		}
	}
	if low != "" && mtus[low] != mtus[high] {
		f.warn(fmt.Sprintf("ip link set %s mtu %d", high, mtus[low]),
			"the MTUs differ (%s %d, %s %d): what comes in long by the one is answered with ICMP fragmentation needed, or fragmented", high, mtus[high], low, mtus[low])
	}
}

// ipvs looks for services of the kernel's own balancer.
func (f *findings) ipvs(vips []netip.Addr) {
	file, err := os.Open("/proc/thread-self/net/ip_vs")
	if err != nil {
		return // no IPVS
	}
	defer file.Close()
	var services []string
	var same bool
	for s := bufio.NewScanner(file); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || !slices.Contains([]string{"TCP", "UDP", "SCTP", "FWM"}, fields[0]) {
			continue
		}
		service, addr := ipvsService(fields)
		services = append(services, service)
		same = same || slices.Contains(vips, addr)
	}
	switch {
	case same:
		f.refuse("ipvsadm -C, once uvsd has the services", "the kernel's IPVS serves a virtual address of uvsd's as well: %s", strings.Join(services, ", "))
	case len(services) > 0:
		f.warn("ipvsadm -C, once uvsd has the services", "the kernel's IPVS is active here: %s", strings.Join(services, ", "))
	}
}

// ipvsService reads the beginning of a line of /proc/net/ip_vs: protocol, then address and port, or mark. The port is hexadecimal,
// and so is an IPv4 address; an IPv6 address has brackets.
func ipvsService(fields []string) (text string, addr netip.Addr) {
	text = fields[0] + " " + fields[1]
	colon := strings.LastIndexByte(fields[1], ':')
	if colon < 0 {
		return text, addr
	}
	host := fields[1][:colon]
	p, err := strconv.ParseUint(fields[1][colon+1:], 16, 16)
	if err != nil {
		return text, addr
	}
	if v6, ok := strings.CutPrefix(host, "["); ok {
		if addr, err = netip.ParseAddr(strings.TrimSuffix(v6, "]")); err != nil {
			return text, netip.Addr{}
		}
	} else {
		a, err := strconv.ParseUint(host, 16, 32)
		if err != nil || len(host) != 8 {
			return text, addr
		}
		addr = packet.AddrFrom4(uint32(a)).Netip()
	}
	return fmt.Sprintf("%s %v", fields[0], netip.AddrPortFrom(addr, uint16(p))), addr
}

// sysctl reads a setting of the thread's network namespace, empty if there is none.
func sysctl(name string) string {
	// An interface's name may have dots of its own, so only the rest is split.
	parts := strings.Split(name, ".")
	if len(parts) > 5 {
		parts = append(append(parts[:3:3], strings.Join(parts[3:len(parts)-1], ".")), parts[len(parts)-1])
	}
	b, err := os.ReadFile("/proc/sys/" + strings.Join(parts, "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// CheckAddresses finds what is wrong with the virtual and gateway addresses: the host has them itself, or another station
// answers ARP for them. It is worth calling for every address that becomes one. It looks at the calling thread's network
// namespace and waits for cfg.ProbeTime.
func CheckAddresses(ctx context.Context, cfg CheckConfig) []Finding {
	var f findings
	owned := slices.Clone(cfg.VIPs)
	for _, g := range cfg.Gateways {
		owned = append(owned, g.Prefix.Addr())
	}
	f.local(owned)
	if cfg.ProbeTime >= 0 {
		f.claimed(ctx, cfg)
	}
	return f
}

// local finds addresses that the host has itself.
func (f *findings) local(owned []netip.Addr) {
	links := make(map[int]string)
	if list, err := netlink.LinkList(); err == nil || errors.Is(err, netlink.ErrDumpInterrupted) {
		for _, l := range list {
			links[l.Attrs().Index] = l.Attrs().Name
		}
	}
	configured := make(map[netip.Addr]bool)
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		f.warn("look with ip addr", "cannot list the host's addresses: %v", err)
	}
	for _, a := range list {
		ip, _ := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); slices.Contains(owned, ip) {
			configured[ip] = true
			f.refuse(fmt.Sprintf("ip addr del %v dev %s", a.IPNet, links[a.LinkIndex]),
				"%v is an address of uvsd's, but the host has it on %s and answers for it: that resets every connection", ip, links[a.LinkIndex])
		}
	}
	for _, a := range owned {
		if configured[a] {
			continue
		}
		routes, err := netlink.RouteGet(a.AsSlice()) // an error is the answer of a blackhole route, or no route
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			f.refuse("ip route del local PREFIX, as ip route show table local type local has it",
				"%v is an address of uvsd's, but a route makes it the host's own", a)
		}
	}
}

// probeTime is the default of CheckConfig.ProbeTime.
const probeTime = time.Second

// claimed asks by ARP on each interface whether another station has one of the addresses.
func (f *findings) claimed(ctx context.Context, cfg CheckConfig) {
	wait := cfg.ProbeTime
	if wait == 0 {
		wait = probeTime
	}
	type question struct {
		*prober
		in    CheckInterface
		addrs []netip.Addr
	}
	var open []question
	for _, in := range cfg.Interfaces {
		q := question{in: in}
		for _, a := range cfg.VIPs {
			if a.Is4() {
				q.addrs = append(q.addrs, a)
			}
		}
		for _, g := range cfg.Gateways {
			if g.Iface == in.Name && g.Prefix.Addr().Is4() {
				q.addrs = append(q.addrs, g.Prefix.Addr())
			}
		}
		if len(q.addrs) == 0 {
			continue
		}
		p, err := openProber(in.Name)
		if err != nil {
			continue // other findings say why
		}
		defer p.close()
		q.prober = p
		open = append(open, q)
	}
	for try := range 2 { // one frame may be lost
		for _, q := range open {
			for _, a := range q.addrs {
				_ = q.ask(q.mac, a)
			}
		}
		// The answers to one wait in its socket while another is read.
		deadline := time.Now().Add(wait / 2)
		for _, q := range open {
			if least := time.Now().Add(10 * time.Millisecond); deadline.Before(least) {
				deadline = least
			}
			_ = q.listen(ctx, deadline, func(r reply) bool {
				if slices.Contains(q.addrs, r.sender) && r.mac != q.mac && r.mac != q.in.MAC {
					f.claim(q.in.Name, r)
				}
				return true
			})
		}
		if try == 0 && ctx.Err() != nil {
			return
		}
	}
}

// claim notes a station that answers for an address, once.
func (f *findings) claim(iface string, r reply) {
	what := fmt.Sprintf("another station, %v on %s, answers ARP for %v: clients may go there instead", r.mac, iface, r.sender)
	if slices.ContainsFunc(*f, func(o Finding) bool { return o.What == what }) {
		return
	}
	f.warn("a real server needs sysctl net.ipv4.conf.all.arp_ignore=1 and net.ipv4.conf.all.arp_announce=2; any other must give the address up", "%s", what)
}
