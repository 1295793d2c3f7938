package e2e

import (
	"bytes"
	"fmt"
	"testing"

	"uvs/lab"
)

// udpSizes are payloads that fit a frame, just don't, and take many fragments.
var udpSizes = []int{0, 1, 1000, 1452, 1453, 1472, 1473, 4000, 9000, 60000}

func TestUDPThroughDirector(t *testing.T) {
	for _, offloadsOff := range []bool{false, true} {
		for _, link := range []string{"ring", "simple"} {
			t.Run(fmt.Sprintf("offloads=%v/%s", !offloadsOff, link), func(t *testing.T) {
				families(t, func(t *testing.T, cfg rigConfig) {
					cfg.OffloadsOff, cfg.Args = offloadsOff, []string{"--link", link}
					r := newRig(t, cfg)
					atServers := [](func() []wire){capture(t, r.RealServers[0].Namespace, "eth0"), capture(t, r.RealServers[1].Namespace, "eth0")}
					atClient := capture(t, r.Clients[0].Namespace, "eth0")
					r.echo(udpSizes...)
					checkChecksums(t, atClient())
					for _, stop := range atServers {
						checkChecksums(t, stop())
					}
					if n := r.status().drops("fragment"); n > 0 {
						t.Errorf("%d fragments were dropped", n)
					}
				})
			})
		}
	}
}

// echo sends a datagram of each size, from one port and from new ones, and checks who answers and what.
func (r *rig) echo(sizes ...int) {
	r.t.Helper()
	conn, err := r.Clients[0].Dial("udp", r.udpService())
	must(r.t, err)
	defer conn.Close()
	var first string
	for _, size := range sizes {
		payload := bytes.Repeat([]byte{byte(size), 'u', 'v', 's'}, size/4+1)[:size]
		server, echo, err := lab.EchoUDP(shortly(r.t), conn, payload)
		if err != nil || !bytes.Equal(echo, payload) {
			r.t.Errorf("echo of %d bytes on one connection: %d bytes from %q, %v", size, len(echo), server, err)
			continue
		}
		if first == "" {
			first = server
		}
		if server != first {
			r.t.Errorf("the datagram of %d bytes went to %s, those before on the same connection to %s", size, server, first)
		}
		if _, echo, err = lab.AskUDP(shortly(r.t), r.Clients[0].Namespace, r.udpAddr(), payload); err != nil || !bytes.Equal(echo, payload) {
			r.t.Errorf("echo of %d bytes on a new connection: %d bytes, %v", size, len(echo), err)
		}
	}
}

// A datagram of a known connection follows it whatever the size, and each new port is scheduled.
func TestUDPIsScheduledByConnection(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.RealServers = 3
		r := newRig(t, cfg)
		tally := lab.Tally{}
		for port := range uint16(30) {
			server, _, err := lab.AskUDP(shortly(t), r.Clients[0].Namespace, r.udpAddr(), fmt.Append(nil, port))
			must(t, err)
			tally[server]++
		}
		// Ports may repeat, but hardly.
		for _, name := range []string{"rs1", "rs2", "rs3"} {
			if tally[name] < 8 {
				t.Errorf("30 datagrams from new ports went to %v", tally)
			}
		}
		// One-packet scheduling sends each datagram of one connection elsewhere.
		r.adm("-E", "-u", r.udpService(), "-s", "rr", "-o")
		if cfg.NAT {
			return // whose answers have no connection to be translated by
		}
		conn, err := r.Clients[0].Dial("udp", r.udpService())
		must(t, err)
		defer conn.Close()
		tally = lab.Tally{}
		for range 9 {
			server, _, err := lab.EchoUDP(shortly(t), conn, []byte("one"))
			must(t, err)
			tally[server]++
		}
		if tally["rs1"] != 3 || tally["rs2"] != 3 || tally["rs3"] != 3 {
			t.Errorf("9 datagrams with one-packet scheduling went to %v", tally)
		}
	})
}

// A server's answer larger than the client's way reaches it in fragments that the director gathers and sends on.
func TestUDPCountsAndBytes(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		r := newRig(t, cfg)
		for range 4 {
			_, _, err := lab.AskUDP(shortly(t), r.Clients[0].Namespace, r.udpAddr(), make([]byte, 4000))
			must(t, err)
		}
		// Counted as IPVS counts: whole datagrams, with their IP header.
		header := 20
		if cfg.Six {
			header = 40
		}
		in, out := 4*(header+8+4000), 4*(header+8+len("rs1: ")+4000)
		want := counters{4, 4, 4, in, out}
		if r.direct {
			want.OutPkts, want.OutBytes = 0, 0
		}
		r.expectStats("-u", r.udpService(), want)
	})
}
