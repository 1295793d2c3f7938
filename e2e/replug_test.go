package e2e

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// An interface of the director that goes down and comes up again under traffic, and one that disappears and returns, with
// the same MAC address or another: uvsd goes on by itself, and what was under way goes on where TCP bears it.
func TestInterfaceGoesAndReturnsUnderTraffic(t *testing.T) {
	const down, sameMAC, anotherMAC = "down", "same MAC", "another MAC"
	for _, c := range []struct {
		kind    lab.LinkKind
		mac     string
		args    []string // of uvsd beside; then it has the race detector
		methods string
		what    []string
	}{
		{lab.Veth, "virtual", nil, "DR TUN NAT", []string{down, sameMAC}},
		{lab.Veth, "interface", nil, "DR NAT", []string{anotherMAC}},
		{lab.Veth, "virtual", []string{"--workers", "3"}, "NAT", []string{anotherMAC}},
		{lab.Veth, "interface", []string{"--workers", "2", "--link", "simple"}, "NAT", []string{sameMAC}},
		{lab.BridgeMaster, "virtual", nil, "NAT", []string{anotherMAC}},
		{lab.BridgeMaster, "interface", nil, "NAT", []string{sameMAC}},
		{lab.Macvlan, "interface", nil, "NAT", []string{down, anotherMAC}},
	} {
		mac := c.mac
		for _, what := range c.what {
			t.Run(fmt.Sprintf("%v/%s%s/%s", c.kind, mac, strings.Join(c.args, ""), what), func(t *testing.T) {
				methods(t, func(t *testing.T, cfg rigConfig) {
					if !strings.Contains(c.methods, cfg.method()) {
						return
					}
					cfg.DirectorLink, cfg.IPForward, cfg.Args, cfg.Race = c.kind, true, append([]string{"--mac", mac}, c.args...), c.args != nil
					r := newRig(t, cfg)
					r.duringOutage(func() {
						for i := range r.Directors[0].Legs {
							away := r.unplug(i, what == down)
							time.Sleep(500 * time.Millisecond)
							newMAC := r.Directors[0].Legs[i].MAC
							if what == anotherMAC {
								newMAC = net.HardwareAddr{2, 0, 0, 0, 78, byte(i)}
							}
							away.replug(newMAC)
						}
						eventually(t, "requests are answered again", func() (bool, any) {
							_, err := lab.CountHTTP(shortly(t), r.client(), r.url()+"/", 4)
							return err == nil, err
						})
					})
					for i, leg := range r.Directors[0].Legs {
						if got := r.macOf(leg.Name); (got == leg.MAC.String()) != (mac == "interface") {
							t.Errorf("in mode %s interface %d with MAC %v has %s", mac, i, leg.MAC, got)
						}
					}
					r.awaitQuiet() // what is under way was seen before
					stop := r.captureDirector()
					r.exercise()
					if legs := stop(); !cfg.TUN {
						r.checkHostSilent(legs)
					}
				})
			})
		}
	}
}

// unplugged is a leg of the director that is away.
type unplugged struct {
	r      *rig
	leg    *lab.Leg
	index  int
	down   bool // merely that
	routes []netlink.Route
}

// unplug takes an interface of the director away, or only down.
func (r *rig) unplug(i int, down bool) *unplugged {
	r.t.Helper()
	host := r.Directors[0]
	u := &unplugged{r: r, leg: &host.Legs[i], down: down}
	var err error
	u.index, err = host.Index(u.leg.Name)
	must(r.t, err)
	all, err := host.Netlink().RouteList(nil, netlink.FAMILY_V4)
	must(r.t, err)
	for _, route := range all {
		if route.LinkIndex == u.index && route.Gw != nil { // of the operator's; the segment's own comes with the address
			u.routes = append(u.routes, route)
		}
	}
	if down {
		must(r.t, host.SetUp(u.leg.Name, false))
	} else {
		must(r.t, host.DeleteLink(u.leg.Name))
	}
	return u
}

// replug brings it back as the host's network configuration does: with its addresses and routes.
func (u *unplugged) replug(mac net.HardwareAddr) {
	r, host := u.r, u.r.Directors[0]
	r.t.Helper()
	index := u.index
	if u.down {
		must(r.t, host.SetUp(u.leg.Name, true))
	} else {
		switch u.leg.Kind {
		case lab.Macvlan:
			must(r.t, host.AddMacvlan(u.leg.Name, u.leg.Lower, mac))
		case lab.BridgeMaster:
			must(r.t, host.AddBridge(u.leg.Name, mac, r.Config.MTU))
			must(r.t, host.SetBridge(u.leg.Lower, u.leg.Name))
			must(r.t, host.SetBridge("spare"+u.leg.Name[3:], u.leg.Name))
		default:
			must(r.t, r.AddVeth(lab.End{Namespace: r.Switch, Name: u.leg.Port, Bridge: u.leg.Bridge},
				lab.End{Namespace: host.Namespace, Name: u.leg.Name, MAC: mac}, r.Config.MTU))
		}
		must(r.t, host.AwaitCarrier(u.leg.Name))
		must(r.t, host.AddAddr(u.leg.Name, u.leg.Prefix))
		var err error
		index, err = host.Index(u.leg.Name)
		must(r.t, err)
	}
	for _, route := range u.routes {
		route.LinkIndex = index
		must(r.t, host.Netlink().RouteReplace(&route))
	}
	// The host as it was before uvsd had another interface.
	for i, line := range r.before {
		line = strings.ReplaceAll(line, fmt.Sprintf("Ifindex: %d ", u.index), fmt.Sprintf("Ifindex: %d ", index))
		line = strings.ReplaceAll(line, fmt.Sprintf(" on %d,", u.index), fmt.Sprintf(" on %d,", index))
		r.before[i] = strings.ReplaceAll(line, u.leg.MAC.String(), mac.String())
	}
	slices.Sort(r.before)
	u.leg.MAC = mac
}

// The director's cable is moved to another switch. The one between them still knows uvs's MAC address on its way to the
// first, and does until uvs says something: it must not wait for the next announcement in turn.
//
//	client, rs1, rs2 --- outside ---+--- switch1
//	                                +--- switch2 --- eth0 director1
func TestCableIsMovedToAnotherSwitch(t *testing.T) {
	for _, mac := range []string{"virtual", "interface"} {
		t.Run(mac, func(t *testing.T) {
			r := newRig(t, rigConfig{Args: []string{"--mac", mac, "--announce-interval", "10m"}})
			port := r.Directors[0].Legs[0].Port
			for _, name := range []string{"switch1", "switch2"} {
				must(t, r.Switch.AddBridge(name, nil, 0))
				must(t, r.AddVeth(lab.End{Namespace: r.Switch, Name: name + "-up", Bridge: name},
					lab.End{Namespace: r.Switch, Name: name + "-down", Bridge: "outside"}, 0))
			}
			move := func(to string) {
				must(t, r.Switch.SetUp(port, false))
				time.Sleep(300 * time.Millisecond)
				must(t, r.Switch.SetBridge(port, to))
				must(t, r.Switch.SetUp(port, true))
				must(t, r.Switch.AwaitCarrier(port))
			}
			move("switch1")
			r.count(2)
			h := r.hold(r.Clients[0])
			time.Sleep(5 * time.Second) // the burst of announcements is over
			move("switch2")
			if _, err := h.ask(r); err != nil {
				t.Errorf("the connection of before: %v", err)
			}
			r.count(2)
		})
	}
}
