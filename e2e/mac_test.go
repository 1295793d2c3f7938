package e2e

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"uvs/lab"
)

// A director's interface that gets another MAC address, as a bond does whose first member went: where that address is
// uvs's too, everybody learns the new one at once, and where uvs has its own nobody notices.
func TestDirectorsInterfaceGetsAnotherMAC(t *testing.T) {
	for _, c := range []struct {
		kind lab.LinkKind
		mac  string
	}{
		{lab.Veth, "virtual"}, {lab.Veth, "interface"}, {lab.BridgeMaster, "virtual"}, {lab.BridgeMaster, "interface"}, {lab.Macvlan, "interface"},
	} {
		t.Run(fmt.Sprintf("%v/mac=%s", c.kind, c.mac), func(t *testing.T) {
			methods(t, func(t *testing.T, cfg rigConfig) {
				if c.kind != lab.Veth && (cfg.NAT || cfg.TUN) {
					return // the kind of interface matters to all methods alike
				}
				cfg.DirectorLink, cfg.IPForward, cfg.Args = c.kind, true, []string{"--mac", c.mac}
				r := newRig(t, cfg)
				was := r.macOf("eth0")
				r.during(func() {
					for i := range r.Directors[0].Legs {
						r.giveLegMAC(i, net.HardwareAddr{2, 0, 0, 0, 77, byte(i)})
					}
					if c.mac == "interface" {
						was = "02:00:00:00:4d:00"
					}
					r.expectOwner(r.VIP(), was)
					if cfg.NAT {
						if mac := r.macOf("eth1"); c.mac == "interface" && mac != "02:00:00:00:4d:01" {
							t.Errorf("eth1 is said to have %s", mac)
						}
						if macs := whoHas(t, r.RealServers[0], r.Gateway); !slices.Equal(macs, []string{r.macOf("eth1")}) {
							t.Errorf("for the gateway answer %v, want %s", macs, r.macOf("eth1"))
						}
					}
				})
				r.awaitQuiet() // what is under way was seen before
				stop := r.captureDirector()
				r.exercise()
				if !cfg.TUN { // whose packets are others outside than in
					r.checkHostSilent(stop())
				} else {
					stop()
				}
			})
		})
	}
}

// A client that gets another MAC address under traffic: the director, which sends it NAT's answers, follows.
func TestClientGetsAnotherMAC(t *testing.T) {
	r := newRig(t, rigConfig{NAT: true})
	time.Sleep(1100 * time.Millisecond)
	r.during(func() {
		mac := net.HardwareAddr{2, 0, 0, 0, 80, 1}
		must(t, r.Clients[0].SetMAC("eth0", mac))
		r.Clients[0].Legs[0].MAC = mac
		r.count(4)
	})
	r.exercise()
}

// giveLegMAC gives an interface of the director another MAC address, and the old one back at the end of the test.
func (r *rig) giveLegMAC(i int, mac net.HardwareAddr) {
	r.t.Helper()
	host, leg := r.Directors[0], &r.Directors[0].Legs[i]
	old := leg.MAC
	must(r.t, host.SetMAC(leg.Name, mac))
	leg.MAC = mac
	r.t.Cleanup(func() { host.SetMAC(leg.Name, old); leg.MAC = old })
}

// expectOwner waits until a station, and no other, answers for an address, and client1 knows it though it didn't ask.
func (r *rig) expectOwner(addr fmt.Stringer, mac string) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%s answers for %v", mac, addr), func() (bool, any) {
		macs := whoHas(r.t, r.Clients[0], r.VIP())
		return slices.Equal(macs, []string{mac}), macs
	})
	if r.Router != nil {
		return // the clients' neighbour is the router
	}
	eventually(r.t, fmt.Sprintf("client1 knows %v at %s", addr, mac), func() (bool, any) {
		seen := "nothing"
		list, err := r.Clients[0].Netlink().NeighList(0, 2)
		must(r.t, err)
		for _, n := range list {
			if n.IP.String() == addr.String() {
				seen = n.HardwareAddr.String()
			}
		}
		return seen == mac, seen
	})
}

// A real server, or the router before it, that gets another MAC address under traffic. One that announces it is followed
// at once, one that says nothing as soon as it misses the director's probes.
func TestServerGetsAnotherMAC(t *testing.T) {
	for _, announced := range []bool{true, false} {
		t.Run(fmt.Sprintf("announced=%v", announced), func(t *testing.T) {
			methods(t, func(t *testing.T, cfg rigConfig) {
				if announced && cfg.TUN {
					return // DR's stations tell the same
				}
				r := newRig(t, cfg)
				changed := slices.Clone(r.RealServers)
				if cfg.TUN {
					changed = append(changed, r.Router) // whom the director sends to
				}
				for _, h := range changed {
					if announced {
						must(t, h.Sysctl("net/ipv4/conf/all/arp_notify", "1"))
					}
				}
				time.Sleep(1100 * time.Millisecond) // a host believes a new address not sooner than that after the old one
				r.duringOutage(func() {
					for i, h := range changed {
						mac := net.HardwareAddr{2, 0, 0, 0, 79, byte(i)}
						must(t, h.SetMAC("eth0", mac))
						h.Legs[0].MAC = mac
					}
					eventually(t, "all servers answer", func() (bool, any) {
						tally, err := lab.CountHTTP(within(t, 5*time.Second), r.client(), r.url()+"/", 4)
						return err == nil && tally["rs1"] > 0 && tally["rs2"] > 0, err
					})
				})
				r.exercise()
			})
		})
	}
}
