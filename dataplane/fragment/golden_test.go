package fragment

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"uvs/forward"
	"uvs/packet"
)

type step struct {
	Pkt, Dir, V, To, From, Fwd, In string
	Out                            []struct{ Src, Dst, Hex string }
}

// TestRecordedFragments gives a Gatherer the fragments of the recordings, has forward do with each whole datagram what
// IPVS did, and wants the frames that came out: their number, order, sizes and bytes.
func TestRecordedFragments(t *testing.T) {
	for _, name := range []string{"fwd-dr", "fwd-nat", "fwd-tun", "v6-dr", "v6-nat"} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile("../../testdata/golden/traces/" + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var trace struct{ Steps []step }
			if err := json.Unmarshal(b, &trace); err != nil {
				t.Fatal(err)
			}
			g, now, done := New(Limits{}), int64(time.Hour), 0
			for i, s := range trace.Steps {
				if s.Pkt != "udpfrag" {
					continue
				}
				now += int64(time.Millisecond)
				in, err := hex.DecodeString(s.In)
				if err != nil {
					t.Fatal(err)
				}
				d, discarded := g.Add(in, now)
				if discarded != 0 {
					t.Errorf("step %d: %d fragments discarded", i, discarded)
				}
				if (d != nil) != (len(s.Out) > 0) {
					t.Fatalf("step %d: whole %v, the recording has %d frames", i, d != nil, len(s.Out))
				}
				if d == nil {
					continue
				}
				done++
				got := send(t, d, &s)
				if len(got) != len(s.Out) {
					t.Fatalf("step %d: %d frames, want %d", i, len(got), len(s.Out))
				}
				for k, out := range s.Out {
					want, _ := hex.DecodeString(out.Hex)
					copy(got[k][packet.VnetLen:], want[:2*6]) // MACs are not forward's business
					if g := got[k][packet.VnetLen:]; !bytes.Equal(blankID(g, s.Fwd), blankID(want, s.Fwd)) {
						t.Errorf("step %d, frame %d:\n got %x\nwant %x", i, k, g, want)
					}
				}
			}
			if done == 0 {
				t.Error("the recording completes no datagram")
			}
			if st := g.Stats(); st.Datagrams != uint64(done) || st.Held == 0 && strings.HasPrefix(name, "fwd") {
				t.Errorf("Stats() = %+v; a fragment without its first should be held", st)
			}
		})
	}
}

func send(t *testing.T, d *Datagram, s *step) (frames [][]byte) {
	t.Helper()
	emit := func(head, body []byte) { frames = append(frames, append(bytes.Clone(head), body...)) }
	var p packet.Packet
	if f := packet.Decode(d.Frame(), &p); f != packet.NoFault {
		t.Fatalf("the whole has fault %v: %x", f, d.Frame())
	}
	p.DecTTL()
	switch {
	case s.Fwd == "?": // IPv6 through NAT: the recorder could not tell, having seen fragments alone
		out, _ := hex.DecodeString(s.Out[0].Hex)
		port := (*packet.Ports)(out[packet.EthLen+packet.IPv6Len+packet.FragmentLen:]).Dst()
		forward.NATIn(&p, d.Vnet(), packet.AddrFrom(netip.MustParseAddr(s.To)), port)
	case s.Fwd == "tun":
		outer, _ := hex.DecodeString(s.Out[0].Hex)
		ip := (*packet.IPv4)(outer[packet.EthLen:])
		tun := forward.Tunnel{Src: packet.AddrFrom4(ip.Src()), Dst: packet.AddrFrom4(ip.Dst())}
		head, body := tun.Wrap(make([]byte, 100), &p, d.Vnet())
		f := append(bytes.Clone(head), body...)
		if !forward.Split(make([]byte, forward.SplitRoom), f[packet.VnetLen:], min(1500, d.Largest()), emit) {
			t.Fatal("Split = false")
		}
		return frames
	case s.Dir == "rs":
		from := netip.MustParseAddrPort(s.From)
		forward.NATOut(&p, d.Vnet(), packet.AddrFrom(from.Addr()), from.Port())
	case s.Fwd == "nat":
		to := netip.MustParseAddrPort(s.To)
		forward.NATIn(&p, d.Vnet(), packet.AddrFrom(to.Addr()), to.Port())
	}
	if !d.Emit(p.Frame, 1500, emit) {
		t.Fatal("Emit = false")
	}
	return frames
}

// blankID takes out the identification of a tunnel's packets: each director counts for itself. In IPv6 the kernel gives all
// fragments another.
func blankID(f []byte, fwd string) []byte {
	b := bytes.Clone(f)
	switch {
	case (*packet.Eth)(b).Type() == packet.EtherIPv6:
		clear(b[packet.EthLen+packet.IPv6Len+4 : packet.EthLen+packet.IPv6Len+packet.FragmentLen])
	case fwd == "tun":
		(*packet.IPv4)(b[packet.EthLen:]).SetID(1)
		packet.FixIPv4Checksum(b[packet.EthLen:])
	}
	return b
}
