package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// localRig is a rig whose director serves as well: HTTP on port 8080 and UDP echo on 5353 of an address of its own.
type localRig struct {
	*rig
	listen netip.Addr // what the programs on the director listen on
}

// own is the address that real server director1 is given by.
func (r *localRig) own() netip.Addr {
	if r.listen.IsUnspecified() {
		return r.addr(r.Directors[0])
	}
	return r.listen
}

// serve makes both services with director1 alone, at its address own.
func (r *localRig) serve(own netip.Addr) {
	r.t.Helper()
	r.restore("-A -t "+r.webService()+" -s rr", fmt.Sprintf("-a -t %s -r %v -m", r.webService(), netip.AddrPortFrom(own, 8080)),
		"-A -u "+r.udpService()+" -s rr", fmt.Sprintf("-a -u %s -r %v -m", r.udpService(), netip.AddrPortFrom(own, 5353)))
}

func newLocalRig(t *testing.T, cfg rigConfig, listen string) *localRig {
	t.Helper()
	addr := netip.MustParseAddr(listen)
	cfg.Bare, cfg.Six = true, addr.Is6()
	r := &localRig{rig: newRig(t, cfg), listen: addr}
	host := r.Directors[0]
	_, err := lab.ServeHTTP(host.Namespace, "director1", netip.AddrPortFrom(r.listen, 8080), netip.AddrPortFrom(r.listen, 80))
	must(t, err)
	if r.listen.IsUnspecified() {
		r.serveUnboundUDP()
		return r
	}
	_, err = lab.ServeUDPEcho(host.Namespace, "director1", netip.AddrPortFrom(r.listen, 5353))
	must(t, err)
	return r
}

// serveUnboundUDP is lab.ServeUDPEcho on every address: with answers for whose source the kernel has the choice.
func (r *localRig) serveUnboundUDP() {
	r.t.Helper()
	network := map[bool]string{false: "udp4", true: "udp6"}[r.listen.Is6()]
	pc, err := r.Directors[0].ListenPacket(network, netip.AddrPortFrom(r.listen, 5353).String())
	must(r.t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 1<<16)
		prefix := copy(buf, "director1: ")
		for {
			n, from, err := pc.ReadFrom(buf[prefix:])
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				pc.WriteTo(buf[:prefix+n], from)
			}
		}
	})
	r.t.Cleanup(func() { pc.Close(); serving.Wait() })
}

// strict makes a host check reverse paths as strictly as it can, while the test runs.
func strict(t *testing.T, h *lab.Host) {
	t.Helper()
	for _, which := range []string{"all", "default", "eth0"} {
		name := "net/ipv4/conf/" + which + "/rp_filter"
		was, err := h.SysctlValue(name)
		must(t, err)
		must(t, h.Sysctl(name, "1"))
		t.Cleanup(func() { must(t, h.Sysctl(name, was)) })
	}
}

// checkNoneAstray fails the test if an answer left the director under another address than the VIP.
func (r *localRig) checkNoneAstray(legs [][]wire) {
	r.t.Helper()
	sent := 0
	for _, w := range slices.Concat(legs...) {
		// Neighbour discovery and group memberships are not meant.
		if !w.Out || !w.isIP() || w.to[0]&1 != 0 {
			continue
		}
		if sent++; w.src != r.VIP() {
			r.t.Fatalf("sent by the director: %v", w)
		}
	}
	if sent == 0 {
		r.t.Error("nothing was sent by the director")
	}
}

// TestLocalServer is a program on the director itself as real server: on loopback, on every address, and on the director's
// own, both ways with much data, and it sees its clients' addresses.
func TestLocalServer(t *testing.T) {
	testLocalServer(t, "127.0.0.1", "0.0.0.0", "10.9.0.1")
}

// TestLocalServer6 is TestLocalServer by IPv6.
func TestLocalServer6(t *testing.T) {
	testLocalServer(t, "::1", "::", "2001:db8:9::1")
}

func testLocalServer(t *testing.T, addresses ...string) {
	i := 0
	for _, listen := range addresses {
		for _, mac := range []string{"virtual", "interface"} {
			for _, offloadsOff := range []bool{false, true} {
				i++
				name := fmt.Sprintf("%s/mac=%s/offloads=%v", listen, mac, !offloadsOff)
				forward, workers := i%2 == 0, 1+i%2
				t.Run(name, func(t *testing.T) {
					r := newLocalRig(t, rigConfig{
						Config: lab.Config{OffloadsOff: offloadsOff, IPForward: forward, Routed: i%3 == 0},
						Args:   []string{"--mac", mac, "--workers", fmt.Sprint(workers)},
						Before: func(r *rig) {
							if forward {
								must(t, r.Directors[0].Sysctl("net/ipv6/conf/all/forwarding", "1"))
							}
						},
					}, listen)
					strict(t, r.Directors[0])
					r.serve(r.own())
					stop := r.captureDirector()
					if got := r.count(4); got["director1"] != 4 {
						t.Errorf("answered by %v, want director1", got)
					}
					_, body, err := lab.AskHTTP(shortly(t), r.client(), r.url()+"/client")
					must(t, err)
					if seen := strings.TrimSpace(string(body)); !strings.HasPrefix(seen, strings.TrimSuffix(netip.AddrPortFrom(r.addr(r.Clients[0]), 0).String(), "0")) {
						t.Errorf("the server sees client %s, want %v", seen, r.addr(r.Clients[0]))
					}
					r.transfer()
					r.echo(0, 1, 1000, 1452, 1472, 1473, 4000, 60000)
					r.checkNoneAstray(stop())
					r.checkCounted()
				})
			}
		}
	}
}

// transfer moves much data both ways through the web service.
func (r *localRig) transfer() {
	r.t.Helper()
	const n = 32 << 20
	_, err := lab.Download(within(r.t, time.Minute), r.client(), r.url(), n)
	must(r.t, err)
	_, err = lab.Upload(within(r.t, time.Minute), r.client(), r.url(), n)
	must(r.t, err)
}

// checkCounted checks that both directions were counted at the server.
func (r *localRig) checkCounted() {
	r.t.Helper()
	eventually(r.t, "packets of both directions are counted", func() (bool, any) {
		out := r.adm("-L", "-n", "--stats", "--exact", "-t", r.webService())
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) == 7 && f[0] == "->" {
				return len(f[5]) > 7 && len(f[6]) > 7, line // tens of millions of bytes
			}
		}
		return false, out
	})
}

// TestLocalFallback is what ldirectord makes of every service: a fallback on 127.0.0.1, or [::1], with the port of the service,
// while there is no other server.
func TestLocalFallback(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		t.Run(loopback, func(t *testing.T) { localFallback(t, loopback) })
	}
}

func localFallback(t *testing.T, loopback string) {
	r := newLocalRig(t, rigConfig{Config: lab.Config{IPForward: true}}, loopback)
	service, fallback := r.webService(), netip.AddrPortFrom(r.own(), 80).String()
	rs1 := r.webServer(1)
	r.adm("-A", "-t", service, "-s", "wrr")
	r.adm("-a", "-t", service, "-r", fallback, "-g", "-w", "1")
	if got := r.count(3); got["director1"] != 3 {
		t.Errorf("answered by %v, want the fallback", got)
	}
	if l := r.list("-t", service)[fallback]; l.forward != "Route" {
		t.Errorf("listed as %+v, want Route as asked for", l)
	}
	r.adm("-a", "-t", service, "-r", rs1, "-g", "-w", "2")
	got := r.count(6)
	if got["director1"] != 2 || got["rs1"] != 4 {
		t.Errorf("with another server of weight 2: %v", got)
	}
	r.adm("-e", "-t", service, "-r", fallback, "-g", "-w", "0")
	if got := r.count(4); got["rs1"] != 4 {
		t.Errorf("with the fallback quiesced: %v", got)
	}
	r.adm("-d", "-t", service, "-r", fallback)
	r.adm("-d", "-t", service, "-r", rs1)
	r.adm("-a", "-t", service, "-r", loopback, "-i")
	if got := r.count(3); got["director1"] != 3 {
		t.Errorf("with the fallback back: %v", got)
	}
}

// A port on which nobody listens is refused by the host, in the VIP's name.
func TestLocalClosedPort(t *testing.T) {
	for _, own := range []string{"127.0.0.1", "10.9.0.1", "::1", "2001:db8:9::1"} {
		t.Run(own, func(t *testing.T) {
			// The programs listen on the other address.
			r := newLocalRig(t, rigConfig{}, map[string]string{"127.0.0.1": "10.9.0.1", "10.9.0.1": "127.0.0.1",
				"::1": "2001:db8:9::1", "2001:db8:9::1": "::1"}[own])
			r.serve(netip.MustParseAddr(own))
			if conn, err := r.Clients[0].Dial("tcp", r.webService()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("connect: %v, %v, want that it is refused", conn, err)
			}
			conn, err := r.Clients[0].Dial("udp", r.udpService())
			must(t, err)
			defer conn.Close()
			eventually(t, "UDP is refused", func() (bool, any) { // the host limits its ICMP errors
				_, err := conn.Write([]byte("x"))
				if err == nil {
					conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
					_, err = conn.Read(make([]byte, 10))
				}
				return errors.Is(err, syscall.ECONNREFUSED), err
			})
		})
	}
}

// Who uses the program by the director's own address goes on doing so while it is a real server too.
func TestLocalServerByItsOwnAddress(t *testing.T) {
	for _, mac := range []string{"virtual", "interface"} {
		for _, listen := range []string{"0.0.0.0", "::"} {
			t.Run(mac+"/"+listen, func(t *testing.T) { localByItsOwnAddress(t, mac, listen) })
		}
	}
}

func localByItsOwnAddress(t *testing.T, mac, listen string) {
	r := newLocalRig(t, rigConfig{Args: []string{"--mac", mac}}, listen)
	own := r.own()
	strict(t, r.Directors[0])
	r.serve(own)
	r.count(2)
	direct := fmt.Sprintf("http://%v", netip.AddrPortFrom(own, 8080))
	for _, from := range []*lab.Host{r.Clients[0], r.RealServers[0], r.Directors[0]} {
		tally, err := lab.CountHTTP(shortly(t), from.HTTPClient(), direct+"/", 3)
		if err != nil || tally["director1"] != 3 {
			t.Errorf("directly from %v: %v, %v", from, tally, err)
		}
		if _, err := lab.Download(within(t, time.Minute), from.HTTPClient(), direct, 8<<20); err != nil {
			t.Errorf("directly from %v: %v", from, err)
		}
		payload := bytes.Repeat([]byte("u"), 3000)
		if _, echo, err := lab.AskUDP(shortly(t), from.Namespace, netip.AddrPortFrom(own, 5353), payload); err != nil || !bytes.Equal(echo, payload) {
			t.Errorf("UDP directly from %v: %d bytes, %v", from, len(echo), err)
		}
	}
	// What the director itself asks others has nothing to do with it.
	if tally, err := lab.CountHTTP(shortly(t), r.Directors[0].HTTPClient(), "http://"+r.webServer(1)+"/", 2); err != nil || tally["rs1"] != 2 {
		t.Errorf("from the director to rs1: %v, %v", tally, err)
	}
}

// A client with a narrow way to it gets what it asks for: the host learns of the path's MTU.
func TestLocalPathMTU(t *testing.T) {
	for _, listen := range []string{"127.0.0.1", "::1", "::"} {
		t.Run(listen, func(t *testing.T) { localPathMTU(t, listen) })
	}
}

func localPathMTU(t *testing.T, listen string) {
	r := newLocalRig(t, rigConfig{Config: lab.Config{Routed: true}}, listen)
	narrow, err := r.Router.Netlink().LinkByName("eth1")
	must(t, err)
	must(t, r.Router.Netlink().LinkSetMTU(narrow, 1300))
	r.serve(r.own())
	if _, err := lab.Download(within(t, time.Minute), r.client(), r.url(), 8<<20); err != nil {
		t.Error(err)
	}
	// Datagrams are cut for it too: these fit where they come from, their answers, with the server's name, do not.
	size := 1300 - 8 - 20 - 2
	if r.own().Is6() {
		size -= 20
	}
	conn, err := r.Clients[0].Dial("udp", r.udpService())
	must(t, err)
	defer conn.Close()
	eventually(t, "the answer to a datagram arrives", func() (bool, any) { // one that tells the router may be lost
		_, echo, err := lab.EchoUDP(within(t, time.Second), conn, make([]byte, size))
		return err == nil && len(echo) == size, err
	})
}

// The next uvsd removes what one that crashed left of its local servers.
func TestLocalAfterCrash(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		t.Run(loopback, func(t *testing.T) { localAfterCrash(t, loopback) })
	}
}

func localAfterCrash(t *testing.T, loopback string) {
	r := newLocalRig(t, rigConfig{}, loopback)
	rules := []string{
		"-A -t " + r.webService() + " -s rr",
		fmt.Sprintf("-a -t %s -r %v -m", r.webService(), netip.AddrPortFrom(r.own(), 8080)),
	}
	r.restore(rules...)
	r.count(2)
	r.kill()
	if left := r.before.difference(stateOf(t, r.Directors[0])); len(left) == 0 {
		t.Error("a crash left nothing behind: this test doesn't see what uvsd installs")
	}
	r.start()
	r.restore("-A -t 10.9.0.99:80 -s rr", fmt.Sprintf("-a -t 10.9.0.99:80 -r %v -g", r.RealServers[0].Addr()))
	eventually(t, "nothing of the crashed one is left", func() (bool, any) {
		left := r.before.difference(stateOf(t, r.Directors[0]))
		for _, line := range left {
			if strings.Contains(line, "rule") {
				return false, line
			}
		}
		return true, nil
	})
	r.restore(rules...)
	if got := r.count(2); got["director1"] != 2 {
		t.Errorf("after the crash: %v", got)
	}
}

// Somebody deletes the device: another is made.
func TestLocalDeviceIsMadeAnew(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		t.Run(loopback, func(t *testing.T) { localDeviceIsMadeAnew(t, loopback) })
	}
}

func localDeviceIsMadeAnew(t *testing.T, loopback string) {
	r := newLocalRig(t, rigConfig{Race: true, Args: []string{"--workers", "2"}}, loopback)
	r.serve(r.own())
	r.count(2)
	must(t, r.Directors[0].DeleteLink("uvslocal0"))
	client := r.client()
	client.Timeout = 2 * time.Second
	eventually(t, "the server answers again", func() (bool, any) {
		_, _, err := lab.AskHTTP(shortly(t), client, r.url()+"/")
		return err == nil, err
	})
	if got := r.count(8); got["director1"] != 8 {
		t.Errorf("answered by %v", got)
	}
}

// An address that uvsd has and the host hasn't is no real server.
func TestLocalIsRefusedWhereItCannotBe(t *testing.T) {
	r := newLocalRig(t, rigConfig{NAT: true}, "127.0.0.1")
	conn, err := r.Clients[0].Dial("udp", netip.AddrPortFrom(r.VIP(), 9).String())
	must(t, err)
	conn.Write([]byte("x")) // something for the director to receive
	must(t, conn.Close())
	r.adm("-A", "-t", r.webService(), "-s", "rr")
	before := r.adm("-S", "-n")
	_, err = r.tryAdm("", "-a", "-t", r.webService(), "-r", r.Gateway.String(), "-m")
	if err == nil || !strings.Contains(err.Error(), "uvsd's own") {
		t.Errorf("the gateway address as a real server: %v", err)
	}
	if after := r.adm("-S", "-n"); after != before {
		t.Errorf("it changed the rules to\n%s", after)
	}
}

// An address of one segment alone is none that uvsd could send to by its device.
func TestLocalLinkLocalIsRefused(t *testing.T) {
	r := newLocalRig(t, rigConfig{}, "::1")
	addrs, err := r.Directors[0].Netlink().AddrList(nil, netlink.FAMILY_V6)
	must(t, err)
	r.serve(r.own())
	r.count(1)
	tried := 0
	for _, a := range addrs {
		if own, _ := netip.AddrFromSlice(a.IP); own.IsLinkLocalUnicast() {
			tried++
			_, err := r.tryAdm("", "-a", "-t", r.webService(), "-r", netip.AddrPortFrom(own, 80).String(), "-g")
			if err == nil || !strings.Contains(err.Error(), "not link-local") {
				t.Errorf("%v as a real server: %v", own, err)
			}
		}
	}
	if tried == 0 {
		t.Error("the director has no link-local address")
	}
}

// Without the driver there can be no such server: it is refused with the remedy, and everything else goes on.
func TestLocalNeedsTheDriver(t *testing.T) {
	uvsd := filepath.Join(t.TempDir(), "uvsd-without-driver")
	must(t, os.WriteFile(uvsd, []byte("#!/bin/sh\nexec unshare --mount sh -c 'mount -t tmpfs none /dev/net && exec "+program("uvsd")+" \"$@\"' uvsd \"$@\"\n"), 0o755))
	r := &rig{t: t, direct: true, Topology: lab.DR(t, lab.Config{})}
	var err error
	r.web, err = r.ServeHTTP(80)
	must(t, err)
	r.director = startDirector(t, r.Directors[0], uvsd, "--interface", "eth0")
	r.adm("-A", "-t", r.webService(), "-s", "rr")
	r.adm("-a", "-t", r.webService(), "-r", r.webServer(1), "-g")
	before := r.adm("-S", "-n")
	_, err = r.tryAdm("", "-a", "-t", r.webService(), "-r", "127.0.0.1", "-g")
	if err == nil || !strings.Contains(err.Error(), "modprobe tun") {
		t.Errorf("-a of 127.0.0.1: %v, want that it names the remedy", err)
	}
	if after := r.adm("-S", "-n"); after != before {
		t.Errorf("it changed the rules to\n%s", after)
	}
	r.count(2)
}
