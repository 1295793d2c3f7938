package e2e

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// condition is how a real server stands, by uvsadm health --json.
type condition struct {
	Service struct{ Address netip.Addr }
	Server  struct{ Address netip.Addr }
	State   string
	Why     string
	Checks  []struct {
		ThroughVIP bool
		Suspected  string
		Changes    []struct{ Time time.Time }
	}
}

// conditions are those of the first real server's, by virtual address, and of the others.
func (r *rig) conditions() (all []condition) {
	r.t.Helper()
	var list struct{ Servers []condition }
	must(r.t, json.Unmarshal([]byte(r.adm("health", "--json")), &list))
	return list.Servers
}

// stands waits until rs1 is in a state for all virtual addresses, and all others are up, asked through them.
func (r *rig) stands(state string) {
	r.t.Helper()
	ours := []netip.Addr{r.RealServers[0].Addr()}
	if r.Config.IPv6 {
		ours = append(ours, r.RealServers[0].Addr6())
	}
	eventually(r.t, "rs1 is "+state+", the others up, all by their virtual addresses", func() (bool, any) {
		all := r.conditions()
		return len(all) > 0 && !slices.ContainsFunc(all, func(c condition) bool {
			want := "up"
			if slices.Contains(ours, c.Server.Address) {
				want = state
			}
			return c.State != want || len(c.Checks) != 1 || !c.Checks[0].ThroughVIP
		}), all
	})
}

// virtual takes the virtual addresses from a real server, or gives them back.
func (r *rig) virtual(rs *lab.Host, dev string, there bool) {
	r.t.Helper()
	index, err := rs.Index(dev)
	must(r.t, err)
	link, err := rs.Netlink().LinkByIndex(index)
	must(r.t, err)
	for _, vip := range slices.Concat(r.VIPs, r.VIPs6) {
		a, err := netlink.ParseAddr(netip.PrefixFrom(vip, vip.BitLen()).String())
		must(r.t, err)
		if there {
			must(r.t, rs.Netlink().AddrAdd(link, a))
		} else {
			must(r.t, rs.Netlink().AddrDel(link, a))
		}
	}
}

// A real server without the virtual address is down by DR and TUN, though its program runs and its own address answers. By
// default the checks come in the host's name, and with --probe-address from there.
func TestServerWithoutVirtualAddressIsDown(t *testing.T) {
	// Longer than any frame or window: what comes to the host's MAC address must come whole, too.
	body := md5.New()
	_, err := io.CopyN(body, lab.Content(0), 60000)
	must(t, err)
	digest := hex.EncodeToString(body.Sum(nil))
	for _, tt := range []struct {
		name, dev string
		cfg       rigConfig
	}{
		{"DR", "lo", rigConfig{Config: lab.Config{IPv6: true}}},
		{"DRInterfaceMAC", "lo", rigConfig{Args: []string{"--mac", "interface"}}},
		{"TUN", "uvsdecap0", rigConfig{TUN: true, Args: []string{"--probe-address", "10.9.0.50"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.cfg)
			rigs := []*rig{r}
			if tt.cfg.IPv6 {
				six := r.over6()
				six.restore(six.rules(six.VIP(), "rr")...)
				rigs = append(rigs, six)
			}
			for _, r := range rigs {
				r.adm("check", "add", "-t", r.webService(), "http", "interval=200ms", "timeout=500ms", "path=/bytes?n=60000", "digest="+digest)
				r.adm("-D", "-u", r.udpService()) // which nobody asks for here
			}
			r.stands("up")
			rs := r.RealServers[0]
			r.virtual(rs, tt.dev, false)
			r.stands("down")
			out := r.adm("check", "test", "-t", r.webService(), "-r", r.webServer(1), "http", "via=direct")
			if !strings.Contains(out, "200") {
				t.Errorf("its own address doesn't answer: %s", out)
			}
			for _, r := range rigs {
				eventually(t, "clients are served, and not by rs1", func() (bool, any) {
					got, err := lab.CountHTTP(shortly(t), r.client(), r.url()+"/", 6)
					return err == nil && got["rs1"] == 0, fmt.Sprint(got, err)
				})
			}
			r.virtual(rs, tt.dev, true)
			r.stands("up")
			if s := r.status(); s.drops("no-way") > 0 {
				t.Errorf("drops: %v", s.Drops)
			}
		})
	}
}

// load opens connections at a steady rate, whatever becomes of those before.
func (r *rig) load(every time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	ctx := within(r.t, 2*patience)
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				go func() {
					c, err := r.Clients[0].DialContext(ctx, "tcp", r.at(80))
					if err == nil {
						_ = c.Close()
					}
				}()
			}
		}
	}()
	return func() { close(done); <-ended }
}

// A real server that dies under load is found by what the packet path sees, long before its next checks: they are seconds apart
// here. How long it takes is printed; how long it may take depends on the machine.
func TestDeadServerIsFoundInBand(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  rigConfig
		die  func(r *rig)
	}{
		{"DR, silent", rigConfig{}, func(r *rig) { r.virtual(r.RealServers[0], "lo", false) }},
		{"NAT, refusing", rigConfig{NAT: true}, func(r *rig) { must(r.t, r.web[0].Close()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.cfg)
			rs := r.RealServers[0]
			capture, err := rs.Capture("eth0")
			must(t, err)
			defer capture.Stop()
			r.adm("check", "add", "-t", r.webService(), "tcp", "interval=20s", "timeout=2s")
			r.adm("-D", "-u", r.udpService())
			stop := r.load(5 * time.Millisecond)
			defer stop()
			eventually(t, "rs1 is up and has connections", func() (bool, any) {
				all := r.conditions()
				return len(r.connectionsTo(capture)) > 200 && len(all) == 2 && all[0].State == "up" && all[1].State == "up", all
			})
			before := len(r.connectionsTo(capture))
			died := time.Now()
			tt.die(r)
			eventually(t, "rs1 is down", func() (bool, any) {
				all := r.conditions()
				return slices.ContainsFunc(all, func(c condition) bool { return c.Server.Address == r.addr(rs) && c.State == "down" }), all
			})
			var down time.Time
			for _, c := range r.conditions() {
				if changes := c.Checks[0].Changes; c.Server.Address == r.addr(rs) {
					down = changes[0].Time // the newest first
				}
			}
			time.Sleep(200 * time.Millisecond)
			after := r.connectionsTo(capture)
			last := died
			if n := len(after); n > before {
				last = after[n-1]
			}
			t.Logf("found after %v; the last of %d connections sent to it after %v", down.Sub(died).Round(time.Millisecond), len(after)-before, last.Sub(died).Round(time.Millisecond))
		})
	}
}

// connectionsTo are the times at which a capture's host got the first packet of each client's connection.
func (r *rig) connectionsTo(c *lab.Capture) (times []time.Time) {
	seen := make(map[layers.TCPPort]bool)
	client := r.addr(r.Clients[0])
	for _, f := range c.Frames() {
		p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.Lazy)
		ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		tcp, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if f.Out || tcp == nil || !tcp.SYN || tcp.ACK || !ip.SrcIP.Equal(client.AsSlice()) || seen[tcp.SrcPort] {
			continue
		}
		seen[tcp.SrcPort] = true
		times = append(times, f.Time)
	}
	return times
}
