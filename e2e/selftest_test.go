package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"uvs/lab"
)

// The kernel tests its IPVS with a network of three namespaces (tools/testing/selftests/net/netfilter/ipvs.sh there). This
// is that network, with its addresses, and uvsd in ip_vs's place:
//
//	ns0, the client              ns1, the director                ns2, the real server
//	veth01 --------------------- veth10 10.0.0.1
//	  |                          veth12 172.16.0.1 -------------- veth21 172.16.0.2
//	br0 10.0.0.2
//	  |
//	veth02 ------------------------------------------------------ veth20 10.0.0.3
//
// The virtual service is 207.175.44.110:8080 with that one server. ns1 doesn't have the address, as it had to for ip_vs.
var (
	selftestVIP = netip.MustParseAddr("207.175.44.110")
	selftestCIP = netip.MustParsePrefix("10.0.0.2/24")
	selftestGIP = netip.MustParsePrefix("10.0.0.1/24") // the director as the client sees it
	selftestDIP = netip.MustParsePrefix("172.16.0.1/24")
	selftestRIP = netip.MustParsePrefix("172.16.0.2/24")
	selftestSIP = netip.MustParsePrefix("10.0.0.3/24") // where the server answers the client directly
	// selftestGateway is uvs's own on ns2's segment, where ns1's address won't do.
	selftestGateway = netip.MustParsePrefix("172.16.0.254/24")
)

const selftestPort = 8080

// selftest is the network.
type selftest struct {
	client, director, server *lab.Host
}

func newSelftest(t *testing.T) *selftest {
	t.Helper()
	l, err := lab.New(lab.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	var hosts [3]*lab.Host
	for i := range hosts {
		ns, err := l.Namespace(fmt.Sprintf("ns%d", i))
		must(t, err)
		if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
			must(t, ns.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
		}
		must(t, ns.Sysctl("net/ipv4/ip_forward", "0"))
		hosts[i] = &lab.Host{Namespace: ns}
	}
	s := &selftest{hosts[0], hosts[1], hosts[2]}
	must(t, s.client.AddBridge("br0", nil, 0))
	must(t, l.AddVeth(lab.End{Namespace: s.client.Namespace, Name: "veth01", Bridge: "br0"}, lab.End{Namespace: s.director.Namespace, Name: "veth10"}, 0))
	must(t, l.AddVeth(lab.End{Namespace: s.client.Namespace, Name: "veth02", Bridge: "br0"}, lab.End{Namespace: s.server.Namespace, Name: "veth20"}, 0))
	must(t, l.AddVeth(lab.End{Namespace: s.director.Namespace, Name: "veth12"}, lab.End{Namespace: s.server.Namespace, Name: "veth21"}, 0))
	for _, a := range []struct {
		host   *lab.Host
		ifname string
		addr   netip.Prefix
	}{
		{s.client, "br0", selftestCIP}, {s.director, "veth10", selftestGIP}, {s.director, "veth12", selftestDIP},
		{s.server, "veth21", selftestRIP}, {s.server, "veth20", selftestSIP},
	} {
		must(t, a.host.AddAddr(a.ifname, a.addr))
		mac, err := a.host.MAC(a.ifname)
		must(t, err)
		a.host.Legs = append(a.host.Legs, lab.Leg{Name: a.ifname, MAC: mac, Prefix: a.addr})
	}
	return s
}

// quiet makes the real server silent about the VIP, and take its packets from where it wouldn't route to the client.
func (s *selftest) quiet(t *testing.T) {
	t.Helper()
	for _, setting := range [][2]string{
		{"net/ipv4/conf/all/arp_ignore", "1"}, {"net/ipv4/conf/all/arp_announce", "2"},
		{"net/ipv4/conf/all/rp_filter", "0"}, {"net/ipv4/conf/veth21/rp_filter", "0"},
	} {
		must(t, s.server.Sysctl(setting[0], setting[1]))
	}
}

// send moves 32 random bytes from the client through the virtual service, which must arrive.
func (s *selftest) send(t *testing.T) {
	t.Helper()
	sent := make([]byte, 32)
	rand.Read(sent)
	file := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(file)
	must(t, err)
	defer out.Close()
	server := s.server.Command(shortly(t), "socat", "-u", "-4", fmt.Sprintf("TCP-LISTEN:%d,reuseaddr", selftestPort), "STDOUT")
	server.Stdout = out
	log := new(logBuffer)
	server.Stderr = log
	must(t, server.Start())
	eventually(t, "the server listens", func() (bool, any) {
		ports, err := listening(s.server)
		must(t, err)
		return ports[selftestPort], log
	})
	client := s.client.Command(shortly(t), "socat", "-u", "-4", "STDIN", "TCP:"+netip.AddrPortFrom(selftestVIP, selftestPort).String())
	client.Stdin = bytes.NewReader(sent)
	if out, err := client.CombinedOutput(); err != nil {
		t.Fatalf("the client: %v\n%s", err, out)
	}
	if err := server.Wait(); err != nil {
		t.Fatalf("the server: %v\n%s", err, log)
	}
	got, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Equal(got, sent) {
		t.Errorf("the server has got %x, want %x", got, sent)
	}
}

// In --mac interface everything is as there: the client routes the VIP to ns1's own address, which is the real server's
// gateway in NAT. In --mac virtual frames for these go to ns1's kernel: so the VIP is on the client's link, and the gateway
// an address of uvs's.
func TestKernelsOwnSelftest(t *testing.T) {
	needs(t, "socat", "socat")
	for _, mac := range []string{"interface", "virtual"} {
		for _, method := range []string{"DR", "NAT", "TUN"} {
			t.Run(mac+"/"+method, func(t *testing.T) {
				s := newSelftest(t)
				args := []string{"--interface", "veth10,veth12", "--mac", mac}
				toVIP, gateway := selftestGIP.Addr(), selftestDIP.Addr()
				if mac == "virtual" {
					toVIP, gateway = netip.Addr{}, selftestGateway.Addr()
					if method == "NAT" {
						args = append(args, "--gateway", selftestGateway.String()+"@veth12")
					}
				}
				must(t, s.client.AddRoute(netip.PrefixFrom(selftestVIP, 32), toVIP, "br0"))
				flag := ""
				switch method {
				case "DR":
					must(t, s.director.Sysctl("net/ipv4/ip_forward", "1"))
					s.quiet(t)
					must(t, s.server.AddAddr("lo", netip.PrefixFrom(selftestVIP, 32)))
				case "NAT":
					flag = " -m"
					must(t, s.director.Sysctl("net/ipv4/ip_forward", "1"))
					must(t, s.server.DeleteLink("veth20"))
					must(t, s.server.AddRoute(defaultRoute, gateway, "veth21"))
				case "TUN":
					flag = " -i"
					s.quiet(t)
					startDecapsulator(t, s.server, []netip.Addr{selftestDIP.Addr()}, []netip.Addr{selftestVIP})
				}
				d := startDirector(t, s.director, program("uvsd"), args...)
				service := netip.AddrPortFrom(selftestVIP, selftestPort).String()
				d.restore("-A -t "+service+" -s rr", fmt.Sprintf("-a -t %s -r %v%s", service, netip.AddrPortFrom(selftestRIP.Addr(), selftestPort), flag))
				s.send(t)
				if n := d.status().Packets.Forwarded; n < 4 {
					t.Errorf("the director forwarded %d packets: the connection went past it", n)
				}
			})
		}
	}
}
