package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"uvs/lab"
)

// Super-frames pass whole: what a host's stack merged or never split reaches the next host as it was.
func TestSuperFramesPassWhole(t *testing.T) {
	for _, link := range []string{"ring", "simple"} {
		t.Run(link, func(t *testing.T) {
			families(t, func(t *testing.T, cfg rigConfig) {
				cfg.Args, cfg.RealServers = []string{"--link", link}, 1
				r := newRig(t, cfg)
				client := capture(t, r.Clients[0].Namespace, "eth0")
				server := capture(t, r.RealServers[0].Namespace, "eth0")
				_, err := lab.Upload(shortly(t), r.client(), r.url(), 16<<20)
				must(t, err)
				if cfg.NAT {
					_, err = lab.Download(shortly(t), r.client(), r.url(), 16<<20)
					must(t, err)
				}
				r.awaitQuiet()
				atClient, atServer := client(), server()
				checkWhole(t, "the client sends to the server", atClient, atServer)
				checkChecksums(t, atServer)
				checkChecksums(t, atClient)
				if cfg.NAT {
					checkWhole(t, "the server sends to the client", atServer, atClient)
				}
			})
		})
	}
}

// checkWhole compares the segments that one host sent with those that another got: the same, and most in super-frames.
func checkWhole(t *testing.T, what string, sender, receiver []wire) {
	t.Helper()
	sizes := func(frames []wire, out bool) (all map[string]int, super, largest int) {
		all = map[string]int{}
		for _, w := range frames {
			if w.Out != out || w.proto != protoTCP || len(w.payload) == 0 {
				continue
			}
			all[fmt.Sprint(w.seq, w.ack, w.id, len(w.payload))]++
			if largest = max(largest, len(w.Data)); w.SegmentSize > 0 {
				super++
			}
		}
		return all, super, largest
	}
	sent, sentSuper, sentLargest := sizes(sender, true)
	got, gotSuper, gotLargest := sizes(receiver, false)
	for s, n := range sent {
		if got[s] != n {
			t.Errorf("what %s isn't what it gets: %d frames of %s became %d", what, n, s, got[s])
			break
		}
	}
	if gotSuper == 0 || gotSuper != sentSuper || gotLargest != sentLargest || gotLargest <= 1514 {
		t.Errorf("what %s: %d super-frames, the largest of %d bytes, arrived as %d with %d bytes", what, sentSuper, sentLargest, gotSuper, gotLargest)
	}
	t.Logf("what %s: %d super-frames of %d frames, the largest has %d bytes", what, gotSuper, len(got), gotLargest)
}

// The director's interfaces may do less than those of the other hosts: what comes with a partial checksum and in
// super-frames is completed and cut by the director's kernel when it leaves, from what uvs made of it.
func TestDirectorWithFewerOffloads(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		r := newRig(t, cfg)
		for _, leg := range r.Directors[0].Legs {
			must(t, r.Directors[0].SetOffloads(leg.Name, false))
		}
		r.exercise()
	})
}

// iperfPort is iperf3's own.
const iperfPort = 5201

// BenchmarkIperf3 moves bytes as fast as it goes between a client and a server in another segment: routed by the kernel
// of the director's host, and balanced by uvs instead. Run it with -benchtime 1x; each run takes two seconds.
func BenchmarkIperf3(b *testing.B) {
	needs(b, "iperf3", "iperf3")
	for _, c := range []struct{ offloads, six bool }{{true, false}, {true, true}, {false, false}} {
		for _, reverse := range []bool{false, true} {
			way := map[bool]string{false: "upload", true: "download"}[reverse]
			prefix := fmt.Sprintf("offloads=%v/%s/%s/", c.offloads, map[bool]string{false: "IPv4", true: "IPv6"}[c.six], way)
			network := lab.Config{RealServers: 1, OffloadsOff: !c.offloads, IPv6: c.six}
			b.Run(prefix+"kernel", func(b *testing.B) {
				network.IPForward = true
				r := &rig{t: b, six: c.six, Topology: lab.NAT(b, network)}
				must(b, r.Clients[0].AddRoute(r.insideNet(), r.addr(r.Directors[0]), ""))
				must(b, r.Directors[0].AddAddr("eth1", netip.PrefixFrom(r.gateway(), r.insideNet().Bits())))
				iperf(b, r.Topology, r.RealServers[0], r.addr(r.RealServers[0]), reverse)
			})
			network.IPForward = false
			for _, nat := range []bool{false, true} {
				b.Run(prefix+map[bool]string{false: "DR", true: "NAT"}[nat], func(b *testing.B) {
					r := newRig(b, rigConfig{NAT: nat, Six: c.six, Config: network})
					r.adm("-A", "-t", r.at(iperfPort), "-s", "rr")
					r.adm("-a", "-t", r.at(iperfPort), "-r", netip.AddrPortFrom(r.addr(r.RealServers[0]), iperfPort).String(), r.method())
					iperf(b, r.Topology, r.RealServers[0], r.VIP(), reverse)
				})
			}
			if c.six {
				continue // Local is IPv4's
			}
			b.Run(prefix+"Local", func(b *testing.B) {
				r := newRig(b, rigConfig{Config: network})
				r.adm("-A", "-t", r.at(iperfPort), "-s", "rr")
				r.adm("-a", "-t", r.at(iperfPort), "-r", "127.0.0.1")
				iperf(b, r.Topology, r.Directors[0], r.VIP(), reverse)
			})
		}
	}
}

// iperf runs iperf3 between client1 and a server, which the client calls by an address, and reports the rate at which the
// receiver got bytes.
func iperf(b *testing.B, topo *lab.Topology, rs *lab.Host, to netip.Addr, reverse bool) {
	b.Helper()
	server := rs.Command(b.Context(), "iperf3", "--server", "--port", fmt.Sprint(iperfPort))
	must(b, server.Start())
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := rs.Dial("tcp", netip.AddrPortFrom(rs.Addr(), iperfPort).String())
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			b.Fatalf("iperf3's server doesn't come up: %v", err)
		}
	}
	args := []string{"--client", to.String(), "--port", fmt.Sprint(iperfPort), "--time", "2", "--json"}
	if reverse {
		args = append(args, "--reverse")
	}
	var bits, runs float64
	for b.Loop() {
		out, err := topo.Clients[0].Command(within(b, 15*time.Second), "iperf3", args...).Output()
		var report struct {
			Error string
			End   struct {
				Received struct {
					Rate float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		if jsonErr := json.Unmarshal(out, &report); err != nil || jsonErr != nil {
			b.Fatalf("iperf3: %v: %s", err, report.Error)
		}
		bits += report.End.Received.Rate
		runs++
	}
	b.ReportMetric(bits/runs/1e9, "Gbit/s")
	b.ReportMetric(0, "ns/op") // tells nothing: a run takes the time it was given
}
