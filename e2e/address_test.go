package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/lab"
)

// macOf is the address that uvs uses on an interface.
func (r *rig) macOf(ifname string) string {
	r.t.Helper()
	for _, i := range r.status().Interfaces {
		if i.Name == ifname {
			return i.MAC
		}
	}
	r.t.Fatalf("uvsd isn't attached to %s", ifname)
	return ""
}

// By ARP, and by NDP.
func TestDirectorAnswersForItsAddresses(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.Bare = true
		r := newRig(t, cfg)
		if macs := whoHas(t, r.Clients[0], r.VIP()); len(macs) > 0 {
			t.Errorf("before there is a service %v answer for its address", macs)
		}
		r.restore(r.rules(r.VIP(), "rr")...)
		if macs := whoHas(t, r.Clients[0], r.VIP()); !slices.Equal(macs, []string{r.macOf("eth0")}) {
			t.Errorf("for the VIP answer %v, want uvs's %s once", macs, r.macOf("eth0"))
		}
		if cfg.NAT {
			if macs := whoHas(t, r.RealServers[0], r.gateway()); !slices.Equal(macs, []string{r.macOf("eth1")}) {
				t.Errorf("for the gateway answer %v, want uvs's %s once", macs, r.macOf("eth1"))
			}
			if macs := whoHas(t, r.RealServers[0], r.VIP()); len(macs) > 1 {
				t.Errorf("inside %v answer for the VIP", macs)
			}
		}
		if macs := whoHas(t, r.Clients[0], r.addr(r.Directors[0])); !slices.Equal(macs, []string{r.Directors[0].Legs[0].MAC.String()}) {
			t.Errorf("for the director's own address answer %v, want its own %v", macs, r.Directors[0].Legs[0].MAC)
		}
		r.checkNotOnHost(r.VIP())
		r.adm("-C")
		if macs := whoHas(t, r.Clients[0], r.VIP()); len(macs) > 0 {
			t.Errorf("after the last service went %v answer for its address", macs)
		}
	})
}

// checkNotOnHost fails the test if the director's kernel has an address.
func (r *rig) checkNotOnHost(addr netip.Addr) {
	r.t.Helper()
	local, err := r.Directors[0].Netlink().RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	must(r.t, err)
	for _, route := range local {
		if route.Type == unix.RTN_LOCAL && route.Dst != nil && route.Dst.IP.Equal(addr.AsSlice()) {
			r.t.Errorf("%v is an address of the director's own: %v", addr, route)
		}
	}
}

// A new address is announced, so that stations that knew another owner learn at once.
func TestDirectorAnnouncesANewAddress(t *testing.T) {
	both(t, testAnnouncement)
}

func testAnnouncement(t *testing.T, six bool) {
	r := newRig(t, rigConfig{Bare: true, Six: six, Config: lab.Config{VIPs: 2}})
	everybody := "ff:ff:ff:ff:ff:ff"
	if six {
		everybody = groupMAC(allNodes).String()
	}
	client := r.Clients[0]
	c, err := client.Capture("eth0")
	must(t, err)
	for _, vip := range r.vips() {
		// The client believes that another station has the address.
		if six {
			r.believe(client, vip, r.RealServers[0].Legs[0].MAC)
		} else {
			sendFrame(t, r.RealServers[0].Namespace, "eth0", arpFrame(client.Legs[0].MAC, r.RealServers[0].Legs[0].MAC, true, vip, client.Addr()))
		}
		r.restore(r.rules(vip, "rr")...)
		w, err := waitFor(shortly(t), c, func(w wire) bool { return w.announces(vip) })
		if err != nil {
			t.Fatal(err)
		}
		if mac := r.macOf("eth0"); w.from.String() != mac || w.claims.String() != mac || w.to.String() != everybody || six && !w.override {
			t.Errorf("announced %v, want uvs's address %s to all", w, mac)
		}
		if _, _, err := lab.AskHTTP(shortly(t), r.client(), urlOf(vip)+"/"); err != nil {
			t.Error(err)
		}
	}
	// The announcement is repeated a second later, for those who missed it.
	_, err = waitFor(shortly(t), c, func() func(wire) bool {
		n := 0
		return func(w wire) bool {
			if w.announces(r.VIP()) {
				n++
			}
			return n > 1
		}
	}())
	must(t, err)
}

// Where the host's stack sees the frames too, it is kept off a new address before uvs takes the first of them: from then
// on it sends none of them on.
func TestHostIsKeptOffANewAddressInTime(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.VIPs, cfg.Bare, cfg.IPForward, cfg.Args = 2, true, true, []string{"--mac", "interface"}
		r := newRig(t, cfg)
		r.restore(r.rules(r.vips()[1], "rr")...) // by which the servers are known to uvs, which needn't look for them later
		r.echoOn(r.vips()[1])
		// The client sends to the director before it serves the address, and the director's host sends on to nowhere.
		elsewhere := net.HardwareAddr{2, 0, 0, 0, 99, 99}
		r.knows(r.Clients[0], r.VIP(), r.Directors[0].Legs[0].MAC)
		r.knows(r.Directors[0], r.VIP(), elsewhere)
		for round := range 5 {
			stops := []func() []wire{}
			for _, leg := range r.Directors[0].Legs {
				stops = append(stops, capture(t, r.Directors[0].Namespace, leg.Name))
			}
			// Another port in each round: a connection that uvs knows it takes up again as soon as its server is back.
			conn, err := r.Clients[0].Dial("udp", r.udpService())
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			var sender sync.WaitGroup
			sender.Go(func() {
				for n := 1000000; ctx.Err() == nil; n++ {
					conn.Write(fmt.Append(nil, n)) // refused at times
					time.Sleep(20 * time.Microsecond)
				}
			})
			time.Sleep(10 * time.Millisecond)
			_, err = r.tryAdm(strings.Join(r.rules(r.VIP(), "rr"), "\n")+"\n", "-R")
			time.Sleep(20 * time.Millisecond)
			cancel()
			sender.Wait()
			conn.Close()
			must(t, err)
			came := map[string]time.Time{}
			var byHost, firstByUVS time.Time // came, and left
			for _, stop := range stops {
				for _, w := range stop() {
					switch {
					case w.proto != protoUDP || len(w.payload) != 7:
					case !w.Out:
						came[string(w.payload)] = w.Time
					case w.to.String() != elsewhere.String():
						if firstByUVS.IsZero() || w.Time.Before(firstByUVS) {
							firstByUVS = w.Time
						}
					case came[string(w.payload)].After(byHost):
						byHost = came[string(w.payload)]
					}
				}
			}
			if byHost.IsZero() || firstByUVS.IsZero() || byHost.After(firstByUVS) {
				t.Errorf("round %d: uvs sent on its first datagram at %v, the host its last that came at %v", round, firstByUVS, byHost)
			}
			r.adm("-D", "-t", r.webService())
			r.adm("-D", "-u", r.udpService())
			eventually(t, "the host is let go on with the address", func() (bool, any) {
				for _, line := range stateOf(t, r.Directors[0]) {
					if strings.HasPrefix(line, "route ") && strings.Contains(line, r.VIP().String()+"/") {
						return false, line
					}
				}
				return true, nil
			})
		}
	})
}

// echoOn asks each real server by a VIP's UDP service.
func (r *rig) echoOn(vip netip.Addr) {
	r.t.Helper()
	for range r.RealServers {
		_, _, err := lab.AskUDP(shortly(r.t), r.Clients[0].Namespace, netip.AddrPortFrom(vip, 53), []byte("hello"))
		must(r.t, err)
	}
}

// knows gives a host a neighbour for the time of the test.
func (r *rig) knows(h *lab.Host, addr netip.Addr, mac net.HardwareAddr) {
	r.t.Helper()
	index, err := h.Index("eth0")
	must(r.t, err)
	n := &netlink.Neigh{LinkIndex: index, IP: addr.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT}
	must(r.t, h.Netlink().NeighSet(n))
	r.t.Cleanup(func() { h.Netlink().NeighDel(n) })
}

// believe makes a host know that an address is at mac.
func (r *rig) believe(h *lab.Host, addr netip.Addr, mac net.HardwareAddr) {
	r.t.Helper()
	index, err := h.Index(h.Legs[0].Name)
	must(r.t, err)
	must(r.t, h.Netlink().NeighSet(&netlink.Neigh{LinkIndex: index, IP: addr.AsSlice(), HardwareAddr: mac, State: netlink.NUD_REACHABLE}))
}

func TestDirectorAnswersEcho(t *testing.T) {
	for _, offloadsOff := range []bool{false, true} {
		families(t, func(t *testing.T, cfg rigConfig) {
			cfg.OffloadsOff = offloadsOff
			r := newRig(t, cfg)
			for _, size := range []int{0, 56, 1472, 4000, 30000} {
				r.ping(r.Clients[0], r.VIP(), size)
			}
			if cfg.NAT {
				r.ping(r.RealServers[0], r.gateway(), 56)
				r.ping(r.RealServers[1], r.gateway(), 3000)
			}
			r.ping(r.Clients[0], r.addr(r.Directors[0]), 56) // the host's own are still the host's
		})
	}
}

// ping sends an ICMP echo request, which must be answered with the same.
func (r *rig) ping(from *lab.Host, to netip.Addr, size int) {
	r.t.Helper()
	network, own, request, reply := "ip4:icmp", from.Addr(), byte(8), byte(0)
	if to.Is6() {
		network, own, request, reply = "ip6:ipv6-icmp", from.Addr6(), 128, 129 // whose checksums are the kernel's affair
	}
	pc, err := from.ListenPacket(network, own.String())
	must(r.t, err)
	defer pc.Close()
	message := make([]byte, 8+size)
	message[0] = request
	binary.BigEndian.PutUint16(message[4:], uint16(size)+1)
	for i := range message[8:] {
		message[8+i] = byte(i * 7)
	}
	binary.BigEndian.PutUint16(message[2:], ^onesSum(message))
	_, err = pc.WriteTo(message, &net.IPAddr{IP: to.AsSlice()})
	must(r.t, err)
	pc.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer := make([]byte, 65536)
	for {
		n, who, err := pc.ReadFrom(answer)
		if err != nil {
			r.t.Errorf("ping %v with %d bytes from %s: %v", to, size, from, err)
			return
		}
		if who.String() == to.String() && answer[0] == reply && (to.Is6() || onesSum(answer[:n]) == 0xffff) && bytes.Equal(answer[4:n], message[4:]) {
			return
		}
	}
}

// onesSum is the Internet checksum's sum, uncomplemented.
func onesSum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// A port of the VIP that no service has is closed, not silent.
func TestPortWithoutServiceIsRefused(t *testing.T) {
	for _, mac := range []string{"virtual", "interface"} {
		t.Run(mac, func(t *testing.T) {
			families(t, func(t *testing.T, cfg rigConfig) {
				cfg.Args, cfg.IPForward = []string{"--mac", mac}, true
				r := newRig(t, cfg)
				stop := r.captureDirector()
				closed := r.at(81)
				if conn, err := r.Clients[0].DialContext(shortly(t), "tcp", closed); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("connecting to %s: %v, %v; want it refused", closed, conn, err)
				}
				r.checkPortUnreachable(closed)
				// Once: the host's kernel would have its say too.
				answers := 0
				for _, w := range slices.Concat(stop()...) {
					if w.Out && (w.isICMP() || w.proto == protoTCP || w.proto == protoUDP) {
						answers++
					}
				}
				if answers != 2 {
					t.Errorf("a SYN and a datagram were answered by %d packets, want 2", answers)
				}
			})
		})
	}
}

// checkPortUnreachable sends a datagram that must be answered with ICMP port unreachable.
func (r *rig) checkPortUnreachable(to string) {
	r.t.Helper()
	conn, err := r.Clients[0].Dial("udp", to)
	must(r.t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("anybody?"))
	must(r.t, err)
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
		r.t.Errorf("a datagram to %s: %v, want it refused", to, err)
	}
}

// A real server's ICMP error about a packet of a client reaches that client as one from the virtual service.
func TestRealServersErrorReachesTheClient(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		r := newRig(t, cfg)
		for _, s := range r.udp {
			must(t, s.Close())
		}
		r.checkPortUnreachable(r.udpService())
		r.checkPortUnreachable(r.udpService())
		// The same by TCP: a server that doesn't listen refuses, and the client sees that from the VIP.
		for _, s := range r.web {
			must(t, s.Close())
		}
		if _, err := r.Clients[0].DialContext(shortly(t), "tcp", r.webService()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting to a service whose servers don't listen: %v, want it refused", err)
		}
	})
}

// A service without a server answers at once that nobody is there, so that clients don't wait.
func TestServiceWithoutServerAnswersUnreachable(t *testing.T) {
	both(t, func(t *testing.T, six bool) {
		r := newRig(t, rigConfig{Six: six})
		empty := r.at(8000)
		r.adm("-A", "-t", empty)
		r.adm("-A", "-u", empty)
		if _, err := r.Clients[0].DialContext(shortly(t), "tcp", empty); err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting to a service without a server: %v, want it refused", err)
		}
		r.checkPortUnreachable(empty)
	})
}
