package ftp

import (
	"strings"
	"testing"

	"uvs/packet"
)

// segment6 builds a segment of the server in IPv6, with a destination-options header before TCP, virtio-net header first.
func segment6(payload []byte, seq uint32, partial bool) []byte {
	const extension = 8
	n := extension + packet.TCPLen + len(payload)
	b := make([]byte, packet.VnetLen+packet.EthLen+packet.IPv6Len+n)
	eth := b[packet.VnetLen:]
	eth[12], eth[13] = 0x86, 0xdd
	packet.PutIPv6(eth[packet.EthLen:], n, packet.Header6{NextHeader: 60, HopLimit: 64, Src: control6.Server, Dst: control6.Client})
	copy(eth[packet.EthLen+packet.IPv6Len:], []byte{packet.ProtoTCP, 0, 1, 4, 0, 0, 0, 0})
	l4 := eth[packet.EthLen+packet.IPv6Len+extension:]
	(*packet.Ports)(l4).SetSrc(21)
	(*packet.Ports)(l4).SetDst(40001)
	h := (*packet.TCP)(l4)
	h.SetSeq(seq)
	h.SetAck(100)
	h.SetHeaderLen(packet.TCPLen)
	h.SetFlags(packet.TCPPsh | packet.TCPAck)
	copy(l4[packet.TCPLen:], payload)
	pseudo := packet.Pseudo6(control6.Server, control6.Client, packet.ProtoTCP, len(l4))
	if !partial {
		h.SetChecksum(^packet.Fold(packet.Sum(l4, pseudo)))
		return b
	}
	v := (*packet.Vnet)(b)
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(packet.EthLen + packet.IPv6Len + extension)
	v.SetCsumOffset(16)
	h.SetChecksum(packet.Fold(pseudo))
	return b
}

func TestRewriteIPv6(t *testing.T) {
	const reply = "229 Extended (|||2000|)\r\n"
	filler := strings.Repeat("200 x\r\n", 200)
	for _, c := range []struct {
		name    string
		payload string
		partial bool
		mtu     int
		want    []string
	}{
		{"longer by one", reply, false, 1500, []string{"229 Extended (|||40000|)\r\n"}},
		{"partial checksum", reply, true, 1500, []string{"229 Extended (|||40000|)\r\n"}},
		{"longer than the way", filler + reply, false, 1400 + 25 + 68, []string{filler + "229 Extended (|||40000|)\r", "\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame := segment6([]byte(c.payload), 5020, c.partial)
			p := decode(t, frame)
			s := &Session{mode: modeExtended}
			r, found := s.Replies(p.Frame[p.Payload:], 5020, &control6)
			if found != Named || r.Server != control6.Server || r.Port != 2000 {
				t.Fatalf("Replies = %+v, %d", r, found)
			}
			s.Answer(&r, control6.Virtual, 40000)
			first, second, ok := r.Rewrite(make([]byte, Room(len(frame))), frame, p, c.mtu)
			if !ok {
				t.Fatal("Rewrite refuses")
			}
			got := [][]byte{first}
			if second != nil {
				got = append(got, second)
			}
			if len(got) != len(c.want) {
				t.Fatalf("%d segments, want %d", len(got), len(c.want))
			}
			for i, f := range got {
				q := decode(t, f)
				if payload := string(q.Frame[q.Payload:]); payload != c.want[i] {
					t.Errorf("segment %d: %q, want %q", i, payload, c.want[i])
				}
				sum := q.Pseudo(packet.ProtoTCP, len(q.L4Bytes()))
				if (*packet.Vnet)(f).NeedsCsum() {
					if q.TCP().Checksum() != packet.Fold(sum) {
						t.Errorf("segment %d: the partial checksum isn't the pseudo-header's", i)
					}
				} else if packet.Fold(packet.Sum(q.L4Bytes(), sum)) != 0xffff {
					t.Errorf("segment %d: wrong checksum", i)
				}
				if len(got) > 1 && q.IPLen() > c.mtu {
					t.Errorf("segment %d has %d bytes", i, q.IPLen())
				}
			}
		})
	}
}
