package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"uvs/lab"
)

// The addresses that doctor asks from in these tests.
var probeAddrs = []string{"10.9.0.50", "2001:db8:9::50"}

// clinic is a rig with the services of both families, and what doctor needs.
type clinic struct{ *rig }

func newClinic(t *testing.T, cfg rigConfig) *clinic {
	t.Helper()
	cfg.Bare, cfg.IPv6 = true, true
	for _, a := range probeAddrs {
		cfg.Args = append(cfg.Args, "--probe-address", a)
	}
	if cfg.NAT {
		cfg.Args = append(cfg.Args, "--gateway", "2001:db8:1::254/64@eth1")
	}
	c := &clinic{newRig(t, cfg)}
	c.serveAll()
	return c
}

// serveAll configures the services of both families.
func (c *clinic) serveAll() {
	c.t.Helper()
	var rules []string
	for _, vip := range []netip.Addr{c.VIP(), c.VIPs6[0]} {
		for _, s := range []struct {
			flag      string
			port, rip uint16
		}{{"-t", 80, c.webPort()}, {"-u", 53, c.udpPort()}} {
			service := netip.AddrPortFrom(vip, s.port)
			rules = append(rules, fmt.Sprintf("-A %s %v -s rr", s.flag, service))
			for _, rs := range c.RealServers {
				addr := rs.Addr()
				if vip.Is6() {
					addr = rs.Addr6()
				}
				rules = append(rules, fmt.Sprintf("-a %s %v -r %v %s", s.flag, service, netip.AddrPortFrom(addr, s.rip), c.method()))
			}
		}
	}
	c.restore(rules...)
}

// diagnosis is what uvsadm doctor --json says.
type diagnosis struct {
	Findings                   []finding
	Unchecked                  []string
	Addresses, Servers, Probes int
	Milliseconds               int
}

type finding struct {
	Kind                 string
	Service              struct{ Protocol, Address string }
	Server               struct{ Address string }
	Host, MAC, Interface string
	What, Seen           string
	Remedies             []struct {
		On, System string
		Do         []string
	}
}

// doctor asks, and checks that the exit status is right.
func (d *director) doctor() (found diagnosis) {
	d.t.Helper()
	out, err := d.tryAdm("", "doctor", "--json")
	exit := (*exec.ExitError)(nil)
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		d.t.Fatal(err)
	}
	must(d.t, json.Unmarshal([]byte(out), &found))
	if (len(found.Findings) > 0) != (err != nil) {
		d.t.Errorf("%d findings, and the status says: %v", len(found.Findings), err)
	}
	return found
}

// want is a finding that there must be: its kind, and what it must name.
type want struct {
	kind    string
	names   []string // in What, Seen, host, MAC or service
	remedy  string   // in a command
	atLeast int      // findings like that, 0 for one
}

func (w want) is(f finding) bool {
	if f.Kind != w.kind {
		return false
	}
	all := fmt.Sprint(f)
	for _, n := range w.names {
		if !strings.Contains(all, n) {
			return false
		}
	}
	return w.remedy == "" || strings.Contains(fmt.Sprint(f.Remedies), w.remedy)
}

// finds fails the test unless doctor finds all of that and nothing else.
func (d *director) finds(wants ...want) {
	d.t.Helper()
	got := d.doctor()
	matched := make([]int, len(wants))
	for _, f := range got.Findings {
		i := slices.IndexFunc(wants, func(w want) bool { return w.is(f) })
		if i < 0 {
			d.t.Errorf("doctor also finds %+v", f)
			continue
		}
		matched[i]++
		if f.What == "" || f.Seen == "" || len(f.Remedies) == 0 {
			d.t.Errorf("the finding lacks something: %+v", f)
		}
	}
	for i, w := range wants {
		if matched[i] < max(w.atLeast, 1) {
			d.t.Errorf("doctor finds %d of %+v; all it found: %+v", matched[i], w, got)
		}
	}
	d.untouched()
}

// untouched fails the test if doctor left connections or counts.
func (d *director) untouched() {
	d.t.Helper()
	if s := d.status(); s.Connections != 0 {
		d.t.Errorf("doctor left %d connections", s.Connections)
	}
	for line := range strings.Lines(d.adm("-L", "-n", "--stats")) {
		if f := strings.Fields(line); len(f) > 3 && (f[0] == "TCP" || f[0] == "UDP" || f[0] == "->" && f[1] != "RemoteAddress:Port") {
			if n := f[len(f)-5:]; !slices.Equal(n, []string{"0", "0", "0", "0", "0"}) {
				d.t.Errorf("doctor left counts: %s", line)
			}
		}
	}
}

func TestDoctorFindsNothingInASoundLab(t *testing.T) {
	sound := func(t *testing.T, cfg rigConfig) {
		c := newClinic(t, cfg)
		for range 2 {
			got := c.doctor()
			if len(got.Findings)+len(got.Unchecked) > 0 {
				t.Errorf("doctor finds %+v", got)
			}
			if got.Servers != 8 || got.Probes < 8 || got.Addresses < 4 {
				t.Errorf("doctor asked for %d servers by %d probes, and for %d addresses", got.Servers, got.Probes, got.Addresses)
			}
			if got.Milliseconds > 10000 {
				t.Errorf("doctor took %d ms", got.Milliseconds)
			}
		}
		c.untouched()
		if out := c.adm("doctor"); !strings.Contains(out, "nothing wrong was found") {
			t.Errorf("doctor prints %q", out)
		}
		// And it goes on serving.
		if got := c.count(4); got["rs1"] != 2 || got["rs2"] != 2 {
			t.Errorf("4 requests went to %v", got)
		}
	}
	methods(t, sound)
	t.Run("NAT by the interface's MAC", func(t *testing.T) {
		sound(t, rigConfig{NAT: true, Args: []string{"--mac", "interface", "--workers", "2"}, Config: lab.Config{IPForward: true}})
	})
}

func TestDoctorFindsWhoAnswersForTheVIP(t *testing.T) {
	t.Run("real server", func(t *testing.T) {
		c := newClinic(t, rigConfig{})
		loud(t, c.RealServers[0])
		must(t, c.RealServers[1].RemoveAddr("lo", netip.PrefixFrom(c.VIPs6[0], 128)))
		addNoDAD(t, c.RealServers[1], netip.PrefixFrom(c.VIPs6[0], 64))
		c.finds(
			want{kind: "arp", names: []string{c.VIP().String(), c.RealServers[0].Addr().String(), c.RealServers[0].Legs[0].MAC.String()}, remedy: "arp_ignore=1"},
			want{kind: "arp", names: []string{c.VIPs6[0].String(), c.RealServers[1].Addr6().String(), c.RealServers[1].Legs[0].MAC.String()}, remedy: "dev lo"},
		)
	})
	t.Run("any other host", func(t *testing.T) {
		c := newClinic(t, rigConfig{NAT: true})
		must(t, c.Clients[0].AddAddr("eth0", netip.PrefixFrom(c.VIP(), 32)))
		addNoDAD(t, c.Clients[0], netip.PrefixFrom(c.VIPs6[0], 128))
		mac := c.Clients[0].Legs[0].MAC.String()
		c.finds(
			want{kind: "arp", names: []string{c.VIP().String(), mac}, remedy: "ip addr del"},
			want{kind: "arp", names: []string{c.VIPs6[0].String(), mac}, remedy: "ip -6 addr del"},
		)
	})
	t.Run("another director", func(t *testing.T) {
		c := newClinic(t, rigConfig{Config: lab.Config{Directors: 2}})
		other := &clinic{&rig{t: t, Topology: c.Topology, direct: true}}
		other.director = startDirector(t, c.Directors[1], program("uvsd"), "--interface", "eth0")
		other.serveAll()
		mac := other.macOf("eth0")
		c.finds(
			want{kind: "second-director", names: []string{c.VIP().String(), mac}, remedy: "uvsadm -D"},
			want{kind: "second-director", names: []string{c.VIPs6[0].String(), mac}},
		)
	})
}

// addNoDAD gives a host an IPv6 address on its first leg that it uses without asking whether it is free.
func addNoDAD(t testing.TB, h *lab.Host, p netip.Prefix) {
	t.Helper()
	out, err := h.Command(shortly(t), "ip", "-6", "addr", "add", p.String(), "dev", h.Legs[0].Name, "nodad").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestDoctorFindsServersWithoutTheVIP(t *testing.T) {
	t.Run("DR", func(t *testing.T) {
		c := newClinic(t, rigConfig{Config: lab.Config{RealServers: 3}})
		must(t, c.RealServers[0].RemoveAddr("lo", netip.PrefixFrom(c.VIP(), 32)))
		must(t, c.RealServers[1].RemoveAddr("lo", netip.PrefixFrom(c.VIPs6[0], 128)))
		// One that is a router besides sends what isn't his own back.
		must(t, c.RealServers[2].RemoveAddr("lo", netip.PrefixFrom(c.VIP(), 32)))
		must(t, c.RealServers[2].Sysctl("net/ipv4/ip_forward", "1"))
		c.finds(
			want{kind: "no-vip", names: []string{c.VIP().String(), c.RealServers[0].Addr().String(), c.RealServers[0].Legs[0].MAC.String()}, remedy: "/32 dev lo", atLeast: 2},
			want{kind: "no-vip", names: []string{c.VIPs6[0].String(), c.RealServers[1].Addr6().String()}, remedy: "/128 dev lo", atLeast: 2},
			want{kind: "no-vip", names: []string{c.VIP().String(), c.RealServers[2].Addr().String(), "the very packet came back"}, remedy: "/32 dev lo", atLeast: 2},
		)
	})
	t.Run("TUN", func(t *testing.T) {
		r := &rig{t: t, Topology: lab.TUN(t, lab.Config{IPv6: true, RealServers: 3}), direct: true, tunnel: true}
		directors := []netip.Addr{r.Directors[0].Addr(), r.Directors[0].Addr6()}
		startDecapsulator(t, r.RealServers[0], directors, slices.Concat(r.VIPs, r.VIPs6))
		startDecapsulator(t, r.RealServers[1], directors, []netip.Addr{netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8:ff::99")})
		for i, rs := range r.RealServers {
			addrs := []netip.AddrPort{netip.AddrPortFrom(rs.Addr(), 80)}
			if i == 0 {
				addrs = append(addrs, netip.AddrPortFrom(r.VIP(), 80), netip.AddrPortFrom(r.VIPs6[0], 80))
			}
			_, err := lab.ServeHTTP(rs.Namespace, fmt.Sprintf("rs%d", i+1), addrs...)
			must(t, err)
		}
		r.director = startDirector(t, r.Directors[0], program("uvsd"), "--interface", "eth0", "--probe-address", probeAddrs[0], "--probe-address", probeAddrs[1])
		c := &clinic{r}
		c.serveAll()
		c.finds(
			want{kind: "no-vip", names: []string{c.VIP().String(), c.RealServers[1].Addr().String()}, remedy: "uvsdecap", atLeast: 2},
			want{kind: "no-vip", names: []string{c.VIPs6[0].String(), c.RealServers[1].Addr6().String()}, remedy: "uvsdecap", atLeast: 2},
			want{kind: "no-tunnel", names: []string{c.VIP().String(), c.RealServers[2].Addr().String()}, remedy: "modprobe ipip", atLeast: 2},
			want{kind: "no-tunnel", names: []string{c.VIPs6[0].String(), c.RealServers[2].Addr6().String()}, remedy: "uvsdecap", atLeast: 2},
		)
	})
}

func TestDoctorFindsServersThatDoNotServe(t *testing.T) {
	methods(t, func(t *testing.T, cfg rigConfig) {
		c := newClinic(t, cfg)
		must(t, c.web[0].Close())
		must(t, c.RealServers[1].SetUp("eth0", false))
		c.finds(
			want{kind: "not-listening", names: []string{c.RealServers[0].Addr().String()}, remedy: "ss -lntup"},
			want{kind: "not-listening", names: []string{c.RealServers[0].Addr6().String()}, remedy: "ss -lntup"},
			want{kind: "unreachable", names: []string{c.RealServers[1].Addr().String()}, atLeast: 2},
			want{kind: "unreachable", names: []string{c.RealServers[1].Addr6().String()}, atLeast: 2},
		)
	})
}

// The real servers' default gateway is the director's, but: rs1's is the host's own address there, rs2's another router, rs3's
// nobody.
func TestDoctorFindsNATServersThatBypassTheDirector(t *testing.T) {
	for _, from := range []string{"probe addresses", "the VIP"} {
		t.Run("from "+from, func(t *testing.T) {
			cfg := rigConfig{NAT: true, Bare: true, Config: lab.Config{RealServers: 4, Routed: true}}
			if from != "the VIP" {
				cfg.Args = []string{"--probe-address", probeAddrs[0]}
			}
			r := newRig(t, cfg)
			must(t, r.AddVeth(lab.End{Namespace: r.Switch, Name: "router-eth2", Bridge: r.RealServers[0].Legs[0].Bridge},
				lab.End{Namespace: r.Router.Namespace, Name: "eth2"}, 0))
			must(t, r.Router.AddAddr("eth2", netip.MustParsePrefix("10.1.0.253/24")))
			for i, via := range []string{"10.1.0.1", "10.1.0.253", "10.1.0.77"} {
				out, err := r.RealServers[i].Command(shortly(t), "ip", "route", "replace", "default", "via", via).CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			r.restore(r.rules(r.VIP(), "rr")...)
			remedy := "ip route replace default via " + r.Gateway.String()
			r.finds(
				want{kind: "nat-bypass", names: []string{r.RealServers[0].Addr().String(), "host"}, remedy: remedy, atLeast: 2},
				want{kind: "nat-bypass", names: []string{r.RealServers[1].Addr().String(), r.Router.Legs[0].MAC.String()}, remedy: remedy, atLeast: 2},
				want{kind: "nat-bypass", names: []string{r.RealServers[2].Addr().String(), "on its own segment, was answered"}, remedy: remedy, atLeast: 2},
			)
		})
	}
}

func TestDoctorFindsPathsTooNarrowForTunnels(t *testing.T) {
	needs(t, "nft", "nftables")
	c := newClinic(t, rigConfig{TUN: true})
	must(t, c.Router.SetMTU("eth1", 1400))
	c.finds(
		want{kind: "tunnel-mtu", names: []string{c.RealServers[0].Addr().String(), "1400"}, remedy: "advmss 1340"},
		want{kind: "tunnel-mtu", names: []string{c.RealServers[1].Addr().String(), "1400"}, remedy: "advmss 1340"},
		want{kind: "tunnel-mtu", names: []string{c.RealServers[0].Addr6().String(), "1400"}, remedy: "advmss 1300"},
		want{kind: "tunnel-mtu", names: []string{c.RealServers[1].Addr6().String(), "1400"}, remedy: "advmss 1300"},
	)
	out, err := c.Router.Command(shortly(t), "nft", "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; "+
		"add rule inet mute out icmp type destination-unreachable drop; add rule inet mute out icmpv6 type packet-too-big drop").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.finds(
		want{kind: "tunnel-mtu", names: []string{c.RealServers[0].Addr().String(), "vanish"}, remedy: "mtu lock"},
		want{kind: "tunnel-mtu", names: []string{c.RealServers[1].Addr().String(), "vanish"}},
		want{kind: "tunnel-mtu", names: []string{c.RealServers[0].Addr6().String(), "vanish"}},
		want{kind: "tunnel-mtu", names: []string{c.RealServers[1].Addr6().String(), "vanish"}},
	)
}

func TestDoctorFindsAHostThatInterferes(t *testing.T) {
	c := newClinic(t, rigConfig{})
	host := c.Directors[0]
	own := netip.PrefixFrom(c.VIP(), 32)
	must(t, host.AddAddr("lo", own))
	c.finds(want{kind: "host", names: []string{c.VIP().String()}, remedy: "ip addr del " + own.String() + " dev lo"})
	must(t, host.RemoveAddr("lo", own))
	must(t, host.Sysctl("net/ipv4/conf/eth0/proxy_arp", "1"))
	c.finds(want{kind: "host", names: []string{"proxy_arp"}, remedy: "proxy_arp=0"})
	must(t, host.Sysctl("net/ipv4/conf/eth0/proxy_arp", "0"))
}

func TestDoctorSaysWhatItCannotAsk(t *testing.T) {
	r := newRig(t, rigConfig{})
	got := r.doctor()
	if len(got.Findings) > 0 || len(got.Unchecked) != 1 || !strings.Contains(got.Unchecked[0], "--probe-address") {
		t.Errorf("without a probe address doctor finds %+v", got)
	}
	if out, err := r.tryAdm("", "doctor", "--jason"); err == nil || !strings.Contains(err.Error(), "exit status 2") {
		t.Errorf("a wrong argument: %q, %v", out, err)
	}
	gone := *r.director
	gone.socket = r.socket + ".gone"
	if out, err := gone.tryAdm("", "doctor"); err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), "cannot reach uvsd") {
		t.Errorf("without uvsd: %q, %v", out, err)
	}
}

func TestDoctorFindsFramesThatWereLost(t *testing.T) {
	t.Run("full ring", func(t *testing.T) {
		c := newClinic(t, rigConfig{})
		mac := macBytes(t, c.macOf("eth0"))
		frame := slices.Concat(mac, c.Clients[0].Legs[0].MAC, []byte{0x88, 0xb5}, make([]byte, 46)) // an experimental EtherType
		must(t, c.cmd.Process.Signal(syscall.SIGSTOP))
		err := sendMany(c.Clients[0].Namespace, "eth0", frame, 20000)
		must(t, c.cmd.Process.Signal(syscall.SIGCONT))
		must(t, err)
		c.finds(want{kind: "drops", names: []string{"eth0", "receive ring was full"}, remedy: "--workers"})
	})
	// A guest's driver may ask for anything in its virtio-net headers.
	t.Run("checksum outside", func(t *testing.T) {
		c := newClinic(t, rigConfig{})
		mac := macBytes(t, c.macOf("eth0"))
		udp := optionFrame(t, &layers.Ethernet{SrcMAC: c.Clients[0].Legs[0].MAC, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4},
			c.Clients[0].Addr(), c.VIP())
		header := make([]byte, 10)
		header[0] = 1                                    // VIRTIO_NET_HDR_F_NEEDS_CSUM
		binary.NativeEndian.PutUint16(header[6:], 14+20) // csum_start: the IP header's options
		binary.NativeEndian.PutUint16(header[8:], 6)     // csum_offset
		must(t, sendVnet(c.Clients[0].Namespace, "eth0", append(header, udp...)))
		eventually(t, "the frame is dropped", func() (bool, any) { s := c.status(); return s.drops("offload") > 0, s })
		c.finds(want{kind: "offload", names: []string{"unfinished checksums"}, remedy: "ethtool -K"})
	})
}

func macBytes(t testing.TB, s string) net.HardwareAddr {
	t.Helper()
	mac, err := net.ParseMAC(s)
	must(t, err)
	return mac
}

// optionFrame is a UDP datagram with an IP option that says nothing.
func optionFrame(t testing.TB, eth *layers.Ethernet, src, dst netip.Addr) []byte {
	t.Helper()
	nop := layers.IPv4Option{OptionType: 1}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, Options: []layers.IPv4Option{nop, nop, nop, nop}, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	udp := &layers.UDP{SrcPort: 4000, DstPort: 53}
	must(t, udp.SetNetworkLayerForChecksum(ip))
	b := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, udp, gopacket.Payload("a question")))
	return b.Bytes()
}

// sendMany puts a frame on the wire n times.
func sendMany(ns *lab.Namespace, ifname string, frame []byte, n int) error {
	return withPacketSocket(ns, ifname, func(fd int, to *unix.SockaddrLinklayer) error {
		for range n {
			if err := unix.Sendto(fd, frame, 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return err
			}
		}
		return nil
	})
}

// sendVnet puts a frame with a virtio-net header on the wire.
func sendVnet(ns *lab.Namespace, ifname string, frame []byte) error {
	return withPacketSocket(ns, ifname, func(fd int, to *unix.SockaddrLinklayer) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return err
		}
		return unix.Sendto(fd, frame, 0, to)
	})
}

func withPacketSocket(ns *lab.Namespace, ifname string, f func(fd int, to *unix.SockaddrLinklayer) error) error {
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		return f(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
}
