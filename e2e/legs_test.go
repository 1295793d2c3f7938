package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"uvs/lab"
)

// exercise moves a bit of everything through the director.
func (r *rig) exercise() {
	r.t.Helper()
	if got := r.count(8); got["rs1"] != 4 || got["rs2"] != 4 {
		r.t.Errorf("8 requests went to %v", got)
	}
	if _, err := lab.Download(shortly(r.t), r.client(), r.url(), 12<<20); err != nil {
		r.t.Error(err)
	}
	if _, err := lab.Upload(shortly(r.t), r.client(), r.url(), 12<<20); err != nil {
		r.t.Error(err)
	}
	r.echo(1, 1472, 4000)
	r.ping(r.Clients[0], r.VIP(), 56)
}

// The director on each kind of interface, in the MAC mode that it chooses by itself and in those that work there.
func TestKindsOfInterface(t *testing.T) {
	for _, c := range []struct {
		kind  lab.LinkKind
		modes []string // the first is the one that auto chooses
	}{
		{lab.Veth, []string{"virtual", "interface"}},
		{lab.Macvlan, []string{"interface"}},
		{lab.BridgeMaster, []string{"virtual", "interface"}},
		{lab.Tap, []string{"virtual", "interface"}},
	} {
		for i, mac := range append([]string{"auto"}, c.modes...) {
			for _, offloadsOff := range []bool{false, true} {
				if offloadsOff && mac != "auto" {
					continue
				}
				t.Run(fmt.Sprintf("%v/mac=%s/offloads=%v", c.kind, mac, !offloadsOff), func(t *testing.T) {
					run := modes
					if mac == "auto" && !offloadsOff {
						run = families
					}
					run(t, func(t *testing.T, cfg rigConfig) {
						cfg.DirectorLink, cfg.OffloadsOff, cfg.Args = c.kind, offloadsOff, []string{"--mac", mac}
						r := newRig(t, cfg)
						for _, port := range r.status().Interfaces {
							if want := c.modes[max(i-1, 0)]; port.Mode != want {
								t.Errorf("%s is in mode %s, want %s", port.Name, port.Mode, want)
							}
						}
						var behind func() []wire
						if c.kind == lab.BridgeMaster {
							behind = capture(t, r.Directors[0].Namespace, "behind0")
						}
						stop := r.captureDirector()
						r.exercise()
						legs := stop()
						r.checkHostSilent(legs)
						if behind != nil {
							for _, w := range behind() {
								if w.to[0]&1 == 0 {
									t.Fatalf("the bridge floods what is addressed to one station: %v", w)
								}
							}
						}
					})
				})
			}
		}
	}
}

// A macvlan hands over nothing for a foreign MAC address: uvsd must not start and be deaf.
func TestVirtualMACOnMacvlanIsRefused(t *testing.T) {
	topo := lab.DR(t, lab.Config{DirectorLink: lab.Macvlan})
	expectRefusal(t, topo.Directors[0], []string{"--interface", "eth0", "--mac", "virtual"}, "macvlan", "--mac interface")
}

// Several workers share each interface's frames by flow, and no packet is lost or doubled between them.
func TestWorkersShareTheLoad(t *testing.T) {
	for _, link := range []string{"ring", "simple"} {
		t.Run(link, func(t *testing.T) {
			run := modes
			if link == "ring" {
				run = families
			}
			run(t, func(t *testing.T, cfg rigConfig) {
				cfg.Args, cfg.Race, cfg.Clients = []string{"--workers", "2", "--link", link}, true, 4
				r := newRig(t, cfg)
				stop := r.captureDirector()
				var all sync.WaitGroup
				for _, c := range r.Clients {
					all.Go(func() {
						if _, err := lab.CountHTTP(shortly(t), c.HTTPClient(), r.url()+"/", 25); err != nil {
							t.Error(err)
						}
						if _, err := lab.Download(shortly(t), c.HTTPClient(), r.url(), 4<<20); err != nil {
							t.Error(err)
						}
						if _, err := lab.Upload(shortly(t), c.HTTPClient(), r.url(), 4<<20); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				r.checkHostSilent(stop())
				r.echo(1, 4000, 20000)
				s := r.status()
				if len(s.Workers) != 2 {
					t.Fatalf("%d workers, want 2", len(s.Workers))
				}
				for i, w := range s.Workers {
					if w.Packets.Forwarded < s.Packets.Forwarded/20 {
						t.Errorf("worker %d forwarded %d of %d frames", i, w.Packets.Forwarded, s.Packets.Forwarded)
					}
				}
				if got := r.stats("-t", r.webService()); got[r.webService()].Conns > 4*27 {
					t.Errorf("%d connections for %d requests", got[r.webService()].Conns, 4*27)
				}
			})
		})
	}
}

// Two directors on one machine and one segment, each with its own socket and addresses, don't meddle with each other.
func TestTwoDirectors(t *testing.T) {
	for _, mac := range []string{"virtual", "interface"} {
		t.Run(mac, func(t *testing.T) {
			r := newRig(t, rigConfig{Config: lab.Config{Directors: 2, VIPs: 2, IPForward: true}, Args: []string{"--mac", mac}})
			other := &rig{Topology: r.Topology, t: t, direct: true}
			other.director = startDirector(t, r.Directors[1], program("uvsd"), "--interface", "eth0", "--mac", mac)
			other.restore(other.rules(r.VIPs[1], "rr")...)

			macs := map[string]bool{}
			for i, d := range []*rig{r, other} {
				answers := whoHas(t, r.Clients[0], r.VIPs[i])
				if len(answers) != 1 || answers[0] != d.macOf("eth0") {
					t.Errorf("for VIP %d answer %v, want director %d's %s", i+1, answers, i+1, d.macOf("eth0"))
				}
				macs[d.macOf("eth0")] = true
			}
			if len(macs) != 2 {
				t.Errorf("the directors use the MAC addresses %v, want one each", macs)
			}
			stop := r.captureDirector()
			var all sync.WaitGroup
			for _, vip := range r.VIPs {
				all.Go(func() {
					tally, err := lab.CountHTTP(shortly(t), r.client(), fmt.Sprintf("http://%v/", vip), 20)
					if err != nil || tally["rs1"] != 10 || tally["rs2"] != 10 {
						t.Errorf("20 requests to %v went to %v, %v", vip, tally, err)
					}
				})
			}
			all.Wait()
			r.checkHostSilent(stop())
			if out := other.adm("-L", "-n"); strings.Contains(out, r.VIP().String()+":") {
				t.Errorf("one director lists the other's service:\n%s", out)
			}
		})
	}
}
