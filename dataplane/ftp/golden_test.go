package ftp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"uvs/forward"
	"uvs/packet"
)

type step struct {
	Pkt, Dir, In string
	Out          []struct{ Eth, Hex string }
	Conns        [][]any
}

// natted is a NAT connection of a replay.
type natted struct {
	Expectation
	id uint64
}

// replay is the part of a director that moves recorded frames: connections in a list, NAT by package forward.
type replay struct {
	t       *testing.T
	tracker *Tracker
	virtual packet.Addr
	control Control
	conns   []*natted
}

func (r *replay) expect(x Expectation) {
	r.conns = append(r.conns, &natted{x, uint64(len(r.conns) + 1)})
}

func (r *replay) move(in []byte) [][]byte {
	buf := append(make([]byte, packet.VnetLen), in...)
	var p packet.Packet
	if packet.Decode(buf[packet.VnetLen:], &p) != packet.NoFault {
		r.t.Fatal("a recorded frame doesn't decode")
	}
	v := (*packet.Vnet)(buf)
	for _, c := range r.conns {
		switch {
		case p.Src == c.Client && p.Dst == r.virtual && p.DstPort == c.VirtualPort && (c.ClientPort == p.SrcPort || c.ClientPort == 0):
			c.ClientPort = p.SrcPort
			if c.VirtualPort == Port {
				if x, ok := r.tracker.FromClient(c.id, &r.control, &p, v, true); ok {
					r.expect(x)
				}
			}
			forward.NATIn(&p, v, c.Server, c.ServerPort)
			p.IPv4().DecTTL()
			return [][]byte{p.Frame}
		case p.Src == c.Server && p.SrcPort == c.ServerPort && p.Dst == c.Client && p.DstPort == c.ClientPort:
			frames := [][]byte{buf}
			if c.VirtualPort == Port {
				frames = r.reply(c, buf, &p, v)
			}
			var out [][]byte
			for _, f := range frames {
				if packet.Decode(f[packet.VnetLen:], &p) != packet.NoFault {
					r.t.Fatal("a rewritten frame doesn't decode")
				}
				forward.NATOut(&p, (*packet.Vnet)(f), r.virtual, c.VirtualPort)
				p.IPv4().DecTTL()
				out = append(out, p.Frame)
			}
			return out
		}
	}
	r.t.Fatalf("a frame of no connection: %+v", p.Flow)
	return nil
}

func (r *replay) reply(c *natted, buf []byte, p *packet.Packet, v *packet.Vnet) [][]byte {
	reply, found := r.tracker.FromServer(c.id, &r.control, p, v, true)
	switch found {
	case Nothing:
		return [][]byte{buf}
	case Named:
		r.expect(reply.Expectation(&r.control))
		r.tracker.Answer(c.id, &reply, &r.control, reply.Port)
	}
	first, second, ok := reply.Rewrite(make([]byte, Room(len(buf))), buf, p, 1500)
	if !ok {
		r.t.Fatal("Rewrite refuses a recorded frame")
	}
	if second != nil {
		return [][]byte{first, second}
	}
	return [][]byte{first}
}

// TestRecordedSessions replays what ip_vs_ftp did, with netfilter's connection tracking and without: every frame of the
// control connection and of the data connections, byte for byte, and the entries expected.
func TestRecordedSessions(t *testing.T) {
	for _, name := range []string{"ftp-nat", "ftp-nat-noct"} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile("../../testdata/golden/traces/" + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var trace struct{ Steps []step }
			if err := json.Unmarshal(b, &trace); err != nil {
				t.Fatal(err)
			}
			addr := func(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }
			r := &replay{t: t, tracker: NewTracker(), virtual: addr("10.9.0.100")}
			r.control = Control{Client: addr("192.0.2.7"), Virtual: r.virtual, VirtualPort: 21, Server: addr("10.1.0.11"), ServerPort: 21}
			r.expect(Expectation{Client: r.control.Client, ClientPort: 40001, VirtualPort: 21, Server: r.control.Server, ServerPort: 21})
			frames := 0
			for i, s := range trace.Steps {
				if s.Conns != nil {
					r.compare(i, s.Conns)
				}
				if s.Pkt == "" {
					continue
				}
				in, err := hex.DecodeString(s.In)
				if err != nil {
					t.Fatal(err)
				}
				out := r.move(in)
				if len(out) != len(s.Out) {
					t.Fatalf("step %d: %d frames, want %d", i, len(out), len(s.Out))
				}
				for k := range out {
					want, err := hex.DecodeString(s.Out[k].Hex)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(out[k][packet.EthLen:], want[packet.EthLen:]) {
						t.Errorf("step %d:\n got %x\nwant %x", i, out[k][packet.EthLen:], want[packet.EthLen:])
					}
					frames++
				}
			}
			if frames < 20 {
				t.Errorf("only %d frames in the recording", frames)
			}
		})
	}
}

// compare wants the recorded entries, whatever their state.
func (r *replay) compare(step int, want [][]any) {
	r.t.Helper()
	got := map[string]bool{}
	for _, c := range r.conns {
		got[strings.Join([]string{
			netip.AddrPortFrom(c.Client.Netip(), c.ClientPort).String(),
			netip.AddrPortFrom(r.virtual.Netip(), c.VirtualPort).String(),
			netip.AddrPortFrom(c.Server.Netip(), c.ServerPort).String(),
		}, " ")] = true
	}
	for _, w := range want {
		entry := strings.Join([]string{w[1].(string), w[2].(string), w[3].(string)}, " ")
		if !got[entry] {
			r.t.Errorf("step %d: no connection %s, there are %v", step, entry, got)
		}
	}
	if len(got) != len(want) {
		r.t.Errorf("step %d: %d connections %v, want %d", step, len(got), got, len(want))
	}
}
