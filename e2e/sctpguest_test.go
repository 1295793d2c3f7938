package e2e

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"uvs/lab"
	"uvs/lab/uml"
)

// A sctpGuest is a lab whose clients and real servers are namespaces of a user-mode Linux, for its kernel has SCTP; the director
// is in the lab as ever. Each station's interface is a tap's other end:
//
//	client 10.9.0.201     --+                          +-- nat1 10.1.0.11
//	dr1, dr2 10.9.0.11    --+-- outside  director      +-- nat2 10.1.0.12
//	tun1, tun2 10.9.0.13  --+            10.9.0.1  inside
type sctpGuest struct {
	*rig
	machine  *uml.Machine
	stations []*sctpStation
	asked    *atomic.Int32 // clients' programs so far
}

// sctpStation is a namespace of the guest.
type sctpStation struct {
	name, bridge string
	number       int // of the host, in the segment
}

func (s *sctpStation) subnet() byte { return map[string]byte{"outside": 9, "inside": 1}[s.bridge] }

// addr is the station's address, as package lab gives them.
func (s *sctpStation) addr(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::%d", s.subnet(), s.number))
	}
	return netip.AddrFrom4([4]byte{10, s.subnet(), 0, byte(s.number)})
}

// tap is the interface in the lab's switch.
func (s *sctpStation) tap() string { return "tap-" + s.name }

// at is the guest in a subtest.
func (g *sctpGuest) at(t testing.TB) *sctpGuest {
	d := *g.director
	d.t = t
	there := *g
	there.rig = &rig{t: t, Topology: g.Topology, director: &d}
	return &there
}

func (g *sctpGuest) station(name string) *sctpStation {
	for _, s := range g.stations {
		if s.name == name {
			return s
		}
	}
	panic("no station " + name)
}

// shell runs a script in the guest.
func (g *sctpGuest) shell(script string) string {
	g.t.Helper()
	out, err := g.machine.Shell(script)
	must(g.t, err)
	return out
}

// newSCTPGuest raises all of it: the guest, with servers, and the director.
func newSCTPGuest(t *testing.T) *sctpGuest {
	t.Helper()
	needs(t, "linux.uml", "user-mode-linux")
	needs(t, "modprobe", "kmod")
	must(t, goBuild(nil, "uvs/lab/sctp"))
	g := &sctpGuest{rig: &rig{t: t}, asked: new(atomic.Int32), stations: []*sctpStation{
		{"client", "outside", 201}, {"dr1", "outside", 11}, {"dr2", "outside", 12}, {"tun1", "outside", 13}, {"tun2", "outside", 14},
		{"nat1", "inside", 11}, {"nat2", "inside", 12},
	}}
	g.Topology = lab.NAT(t, lab.Config{Clients: -1, RealServers: -1, IPv6: true})
	g.boot()
	g.dress()
	for _, s := range g.stations {
		if s.name != "client" {
			g.serve(s)
		}
	}
	g.director = startDirector(t, g.Directors[0], program("uvsd"), "--interface", "eth0,eth1",
		"--gateway", g.Gateway.String()+"/24@eth1", "--gateway", g.Gateway6.String()+"/64@eth1")
	return g
}

// boot starts the guest with a tap for each station.
func (g *sctpGuest) boot() {
	g.t.Helper()
	dir, err := os.MkdirTemp("", "uvs-uml-")
	must(g.t, err)
	g.t.Cleanup(func() { os.RemoveAll(dir) })
	tools, err := uml.Build(g.t.Context(), dir)
	must(g.t, err)
	cfg := uml.Config{
		Modules: []string{"sctp", "hmac", "tun"}, // hmac: of the cookies
		Start:   func(c *exec.Cmd) error { return g.Switch.Do(c.Start) },
	}
	for _, s := range g.stations {
		must(g.t, lab.End{Namespace: g.Switch, Name: s.tap(), Bridge: s.bridge}.AddTap(1500))
		ip := s.addr(false).As4()
		cfg.Devices = append(cfg.Devices, uml.Tap(s.tap(), net.HardwareAddr{2, 0, ip[0], ip[1], ip[2], ip[3]}))
	}
	g.machine, err = uml.Boot(tools, cfg)
	must(g.t, err)
	g.t.Cleanup(func() {
		if g.t.Failed() {
			g.t.Logf("logs in the guest:\n%s", g.shell("for f in /run/*-*; do echo $f:; cat $f; done"))
		}
		g.machine.Close()
	})
}

// dress makes the stations: namespace, interface, addresses, and what a real server of the method has. It starts few programs,
// which takes the guest long.
func (g *sctpGuest) dress() {
	g.t.Helper()
	var script strings.Builder
	script.WriteString("set -e\nip -b - <<'.'\n")
	for i, s := range g.stations {
		fmt.Fprintf(&script, "netns add %s\nlink set vec%d netns %[1]s\n", s.name, i)
	}
	g.shell(script.String() + ".\n")
	vip, vip6 := g.VIP(), g.VIPs6[0]
	for i, s := range g.stations {
		script.Reset() // a terminal loses what is longer than 4 KB
		fmt.Fprintf(&script, `nsenter --net=/run/netns/%s sh -e <<'end'
for i in all default vec%d; do echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter; cd /proc/sys/net/ipv6/conf/$i; echo 0 >accept_dad; echo 0 >router_solicitations; done
cd /proc/sys/net/sctp; echo 100 >rto_min; echo 200 >rto_initial # ms; by themselves 1000 and 3000
cd /proc/sys/net/ipv4/conf/all; echo %[3]d >arp_ignore; echo %[4]d >arp_announce
ip -b - <<'.'
link set lo up
link set vec%[2]d up
addr add %[5]v/24 dev vec%[2]d
addr add %[6]v/64 dev vec%[2]d nodad
`, s.name, i, 1, 2, s.addr(false), s.addr(true))
		switch {
		case s.bridge == "inside":
			fmt.Fprintf(&script, "route add default via %v\nroute add default via %v\n", g.Gateway, g.Gateway6)
		case strings.HasPrefix(s.name, "dr"):
			fmt.Fprintf(&script, "addr add %v/32 dev lo\naddr add %v/128 dev lo\n", vip, vip6)
		}
		g.shell(script.String() + ".\nend\n")
	}
	for _, s := range g.stations {
		must(g.t, g.Switch.AwaitCarrier(s.tap()))
	}
	d := g.Directors[0]
	for _, name := range []string{"tun1", "tun2"} {
		g.start(name, "uvsdecap", `"msg":"decapsulating"`, fmt.Sprintf("%s --director %v --director %v --vip %v --vip %v",
			program("uvsdecap"), d.Addr(), d.Addr6(), vip, vip6))
	}
}

// serve has a station serve in both families.
func (g *sctpGuest) serve(station *sctpStation) {
	g.t.Helper()
	command := program("sctp") + " serve " + station.name
	for _, v6 := range []bool{false, true} {
		for _, s := range g.services(v6) {
			switch k := slices.Index(s.names[:], station.name); {
			case k < 0:
			case s.method == "-m":
				command += " " + s.servers[k].String()
			default:
				command += " " + s.addr.String()
			}
		}
	}
	g.start(station.name, "sctp", "listening\n", command)
}

// start runs a program on a station, for good, and waits until it says that it is ready.
func (g *sctpGuest) start(station, name, ready, command string) {
	g.t.Helper()
	log := "/run/" + station + "-" + name
	g.shell(fmt.Sprintf("nsenter --net=/run/netns/%s %s </dev/null >%s 2>&1 &", station, command, log))
	g.await(log, ready)
}

// await is a file of the guest when it has a text.
func (g *sctpGuest) await(file, text string) string {
	g.t.Helper()
	out, err := g.machine.Await(file, text)
	must(g.t, err)
	return out
}

// protoSCTP is its number in IP headers.
const protoSCTP = 132

// ipLen is the length of an IP packet.
func ipLen(w wire) int {
	if b := w.Data[etherHeader:]; w.kind == etherIPv6 {
		return 40 + int(binary.BigEndian.Uint16(b[4:]))
	} else {
		return int(binary.BigEndian.Uint16(b[2:]))
	}
}

// crcOK says that the checksum of an SCTP packet, common header first, is right (RFC 9260 section 6.8).
func crcOK(b []byte) bool {
	zeroed := append([]byte(nil), b...)
	clear(zeroed[8:12])
	return binary.LittleEndian.Uint32(b[8:]) == crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli))
}
