package ftp

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"uvs/packet"
)

// segment builds a segment of the server, virtio-net header first. A partial one leaves its checksum to the device, as does
// a super-frame, of which each segment has gso bytes.
func segment(payload, options []byte, seq uint32, flags uint8, partial bool, gso int) []byte {
	n := packet.IPv4Len + packet.TCPLen + len(options) + len(payload)
	b := make([]byte, packet.VnetLen+packet.EthLen+n)
	eth := b[packet.VnetLen:]
	eth[12], eth[13] = 8, 0
	packet.PutIPv4(eth[packet.EthLen:], n, packet.Header4{
		ID: 7, DF: true, TTL: 64, Proto: packet.ProtoTCP, Src: control4.Server.V4(), Dst: control4.Client.V4(),
	})
	l4 := eth[packet.EthLen+packet.IPv4Len:]
	(*packet.Ports)(l4).SetSrc(21)
	(*packet.Ports)(l4).SetDst(40001)
	h := (*packet.TCP)(l4)
	h.SetSeq(seq)
	h.SetAck(100)
	h.SetHeaderLen(packet.TCPLen + len(options))
	h.SetFlags(flags)
	copy(l4[packet.TCPLen:], options)
	copy(l4[packet.TCPLen+len(options):], payload)
	pseudo := packet.Pseudo4(control4.Server.V4(), control4.Client.V4(), packet.ProtoTCP, len(l4))
	if !partial {
		h.SetChecksum(^packet.Fold(packet.Sum(l4, pseudo)))
		return b
	}
	v := (*packet.Vnet)(b)
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(packet.EthLen + packet.IPv4Len)
	v.SetCsumOffset(16)
	h.SetChecksum(packet.Fold(pseudo))
	if gso > 0 {
		v.SetGSOType(packet.GSOTCPv4)
		v.SetGSOSize(gso)
	}
	return b
}

func decode(t testing.TB, frame []byte) *packet.Packet {
	t.Helper()
	p := new(packet.Packet)
	if fault := packet.Decode(frame[packet.VnetLen:], p); fault != packet.NoFault {
		t.Fatalf("Decode = %v", fault)
	}
	if len(p.Frame) != len(frame)-packet.VnetLen {
		t.Fatalf("the IP packet has %d bytes of %d", len(p.Frame), len(frame)-packet.VnetLen)
	}
	return p
}

// checksumOK completes a partial checksum and verifies the result.
func checksumOK(t testing.TB, frame []byte) bool {
	t.Helper()
	p := decode(t, bytes.Clone(frame))
	h, l4 := p.TCP(), p.L4Bytes()
	pseudo := packet.Pseudo4(p.IPv4().Src(), p.IPv4().Dst(), packet.ProtoTCP, len(l4))
	if (*packet.Vnet)(frame).NeedsCsum() {
		return h.Checksum() == packet.Fold(pseudo)
	}
	return packet.Fold(packet.Sum(l4, pseudo)) == 0xffff
}

const pasvReply = "227 Entering Passive Mode (10,1,0,11,156,64)\r\n"

// answered finds the reply in a frame and answers it.
func answered(t testing.TB, frame []byte, virtual packet.Addr, port uint16) (*packet.Packet, Reply, *Session) {
	t.Helper()
	p := decode(t, frame)
	s := &Session{mode: modePassive}
	r, found := s.Replies(p.Frame[p.Payload:], p.TCP().Seq(), &control4)
	if found != Named {
		t.Fatalf("Replies found %d", found)
	}
	s.Answer(&r, virtual, port)
	return p, r, s
}

func TestRewrite(t *testing.T) {
	psh := uint8(packet.TCPPsh | packet.TCPAck)
	timestamps := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	filler := strings.Repeat("200 x\r\n", 202) // 1414 bytes
	for _, c := range []struct {
		name    string
		frame   []byte
		virtual string
		mtu     int
		want    []string // payloads
		seqs    []uint32
		flags   []uint8
	}{
		{"longer by one", segment([]byte(pasvReply), nil, 5020, psh, false, 0), "10.9.0.100", 1500,
			[]string{"227 Entering Passive Mode (10,9,0,100,156,64)\r\n"}, []uint32{5020}, []uint8{psh}},
		{"shorter", segment([]byte(pasvReply), timestamps, 5020, psh|packet.TCPFin, false, 0), "1.2.3.4", 1500,
			[]string{"227 Entering Passive Mode (1,2,3,4,156,64)\r\n"}, []uint32{5020}, []uint8{psh | packet.TCPFin}},
		{"of the same length", segment([]byte(pasvReply), nil, 5020, psh, true, 0), "10.9.0.99", 1500,
			[]string{"227 Entering Passive Mode (10,9,0,99,156,64)\r\n"}, []uint32{5020}, []uint8{psh}},
		{"partial checksum", segment([]byte(pasvReply), timestamps, 5020, psh, true, 0), "100.100.100.100", 1500,
			[]string{"227 Entering Passive Mode (100,100,100,100,156,64)\r\n"}, []uint32{5020}, []uint8{psh}},
		{"just fits", segment([]byte(filler+pasvReply), nil, 5020, psh, false, 0), "10.9.0.100", 1414 + 47 + 40,
			[]string{filler + "227 Entering Passive Mode (10,9,0,100,156,64)\r\n"}, []uint32{5020}, []uint8{psh}},
		{"longer than the way", segment([]byte(filler+pasvReply), nil, 5020, psh|packet.TCPFin, false, 0), "100.100.100.100", 1414 + 46 + 40,
			[]string{filler + "227 Entering Passive Mode (100,100,100,100,156", ",64)\r\n"},
			[]uint32{5020, 5020 + 1460}, []uint8{packet.TCPAck, psh | packet.TCPFin}},
		{"longer than the way, partial, sequence wraps", segment([]byte(filler+pasvReply), timestamps, 1<<32-1000, psh, true, 0), "100.100.100.100", 1512,
			[]string{filler + "227 Entering Passive Mode (100,100,100,100,156", ",64)\r\n"},
			[]uint32{1<<32 - 1000, 1460 - 1000}, []uint8{packet.TCPAck, psh}},
		{"super-frame", segment([]byte(filler+filler+pasvReply), nil, 5020, psh, true, 1448), "10.9.0.100", 1500,
			[]string{filler + filler + "227 Entering Passive Mode (10,9,0,100,156,64)\r\n"}, []uint32{5020}, []uint8{psh}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := bytes.Clone(c.frame)
			p, r, _ := answered(t, c.frame, addr(c.virtual), 40000)
			buf := make([]byte, Room(len(c.frame)))
			first, second, ok := r.Rewrite(buf, c.frame, p, c.mtu)
			if !ok {
				t.Fatal("Rewrite refuses")
			}
			if !bytes.Equal(before, c.frame) {
				t.Error("the frame itself was changed")
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
					t.Errorf("segment %d: %d bytes ... %q, want %d ... %q", i, len(payload), payload[max(len(payload)-60, 0):], len(c.want[i]),
						c.want[i][max(len(c.want[i])-60, 0):])
				}
				if h := q.TCP(); h.Seq() != c.seqs[i] || h.Flags() != c.flags[i] || h.HeaderLen() != p.TCP().HeaderLen() {
					t.Errorf("segment %d: seq %d, flags %#x, want %d, %#x", i, h.Seq(), h.Flags(), c.seqs[i], c.flags[i])
				}
				if !checksumOK(t, f) || q.IPv4().ID() != uint16(7+i) || !bytes.Equal(f[:packet.VnetLen+packet.EthLen], before[:packet.VnetLen+packet.EthLen]) {
					t.Errorf("segment %d: checksum %v, id %d", i, checksumOK(t, f), q.IPv4().ID())
				}
				if len(got) > 1 && q.IPLen() > c.mtu {
					t.Errorf("segment %d has %d bytes", i, q.IPLen())
				}
			}
			if &first[0] != &buf[0] {
				t.Error("Room was too little")
			}
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	frame := segment([]byte(pasvReply), nil, 5020, packet.TCPAck, false, 0)
	p, r, _ := answered(t, frame, control4.Virtual, 40000)
	p.TCP().SetChecksum(p.TCP().Checksum() + 1)
	if _, _, ok := r.Rewrite(make([]byte, Room(len(frame))), frame, p, 1500); ok {
		t.Error("a segment with a wrong checksum gets a right one")
	}
	long := append(bytes.Repeat([]byte("x\r\n"), 21800), pasvReply...)
	long = append(long, bytes.Repeat([]byte("x"), 0xffff-40-len(long))...)
	frame = segment(long, nil, 5020, packet.TCPAck, true, 1448)
	p, r, _ = answered(t, frame, control4.Virtual, 40000)
	if _, _, ok := r.Rewrite(make([]byte, Room(len(frame))), frame, p, 1500); ok {
		t.Error("an IP packet of 65536 bytes")
	}
}

func TestNumbersFollowOnTheWire(t *testing.T) {
	tr := NewTracker()
	server := func(frame []byte) (Reply, Found, *packet.Packet) {
		p := decode(t, frame)
		r, found := tr.FromServer(1, &control4, p, (*packet.Vnet)(frame), true)
		if !checksumOK(t, frame) {
			t.Error("wrong checksum after FromServer")
		}
		return r, found, p
	}
	client := func(frame []byte) *packet.Packet {
		p := decode(t, frame)
		tr.FromClient(1, &control4, p, (*packet.Vnet)(frame), true)
		if !checksumOK(t, frame) {
			t.Error("wrong checksum after FromClient")
		}
		return p
	}
	client(segment([]byte("PASV\r\n"), nil, 1, packet.TCPAck, false, 0))
	r, found, _ := server(segment([]byte(pasvReply), nil, 5020, packet.TCPAck, false, 0))
	if found != Named {
		t.Fatalf("found %d", found)
	}
	tr.Answer(1, &r, &control4, 40000)
	for _, partial := range []bool{false, true} {
		if _, _, p := server(segment([]byte("150 more\r\n"), nil, 5066, packet.TCPAck, partial, 0)); p.TCP().Seq() != 5067 {
			t.Errorf("partial %v: seq %d, want 5067", partial, p.TCP().Seq())
		}
		if _, found, p := server(segment([]byte(pasvReply), nil, 5020, packet.TCPAck, partial, 0)); found != Again || p.TCP().Seq() != 5020 {
			t.Errorf("partial %v: sent again: found %d, seq %d", partial, found, p.TCP().Seq())
		}
		// Selective acknowledgements at even and odd places.
		for _, options := range [][]byte{
			{1, 1, 5, 10, 0, 0, 0x13, 0xd5, 0, 0, 0x13, 0xdf}, // 5077-5087
			{1, 5, 10, 0, 0, 0x13, 0xd5, 0, 0, 0x13, 0xdf, 1},
		} {
			frame := segment(nil, options, 1, packet.TCPAck, false, 0)
			if partial {
				frame = segment(nil, options, 1, packet.TCPAck, true, 0)
			}
			p := decode(t, frame)
			p.TCP().SetAck(5067)
			if !partial {
				h := p.TCP()
				h.SetChecksum(packet.Update32(h.Checksum(), 100, 5067))
			}
			client(frame)
			blocks, n, _ := packet.SACKBlocks(p.Frame[p.L4+packet.TCPLen : p.Payload])
			if p.TCP().Ack() != 5066 || n != 1 || blocks[0].Left() != 5076 || blocks[0].Right() != 5086 {
				t.Errorf("partial %v: ack %d, block %d-%d", partial, p.TCP().Ack(), blocks[0].Left(), blocks[0].Right())
			}
		}
	}
	syn := segment(nil, nil, 1, packet.TCPSyn, false, 0) // its acknowledgement number means nothing
	if p := client(syn); p.TCP().Ack() != 100 {
		t.Errorf("a segment without ACK acknowledges %d", p.TCP().Ack())
	}
}

func TestTrackerForgetsAndKeeps(t *testing.T) {
	tr := NewTracker()
	say := func(id uint64, text string, established bool) (Expectation, bool) {
		frame := segment([]byte(text), nil, 1, packet.TCPAck, false, 0)
		return tr.FromClient(id, &control4, decode(t, frame), (*packet.Vnet)(frame), established)
	}
	reply := func(id uint64, text string, established bool) (Reply, Found) {
		frame := segment([]byte(text), nil, 5020, packet.TCPAck, false, 0)
		return tr.FromServer(id, &control4, decode(t, frame), (*packet.Vnet)(frame), established)
	}
	if say(1, "USER x\r\n", true); tr.Sessions() != 0 {
		t.Error("a connection that asks for no data has a session")
	}
	if say(1, "PASV\r\n", false); tr.Sessions() != 0 {
		t.Error("a connection that isn't established has a session")
	}
	say(1, "PASV\r\n", true)
	if _, found := reply(1, pasvReply, false); found != Nothing {
		t.Errorf("a reply before the connection is established: %d", found)
	}
	if _, found := reply(2, pasvReply, true); found != Nothing {
		t.Errorf("a reply on another connection: %d", found)
	}
	r, found := reply(1, pasvReply, true)
	if found != Named {
		t.Fatalf("found %d", found)
	}
	tr.Answer(1, &r, &control4, 40001)
	tr.Claimed(71, control4.Client, control4.Virtual, 40000) // not the port that was answered
	tr.Claimed(72, control4.Client, control4.Virtual, 40001)
	tr.Claimed(73, control4.Client, control4.Virtual, 40001) // claimed already
	if _, ok := say(2, "PORT 192,0,2,7,200,10\r\n", true); !ok {
		t.Fatal("no expectation")
	}
	tr.Opens(2, 81)
	tr.Opens(2, 81)
	tr.Opens(9, 91) // no session

	gone := map[uint64]bool{}
	sweep := func() (kept []uint64) {
		tr.Sweep(func(id uint64) bool { return !gone[id] }, func(id uint64) { kept = append(kept, id) })
		return kept
	}
	if kept := sweep(); len(kept) != 2 || tr.Sessions() != 2 {
		t.Errorf("kept %v, want both", kept)
	}
	gone[72], gone[81] = true, true
	if kept := sweep(); len(kept) != 0 || tr.Sessions() != 2 {
		t.Errorf("kept %v after the data connections have gone", kept)
	}
	gone[1] = true
	if sweep(); tr.Sessions() != 1 {
		t.Errorf("%d sessions, want one", tr.Sessions())
	}
	gone[2] = true
	sweep()
	if tr.Sessions() != 0 || tr.used.Load() || len(tr.waiting) != 0 {
		t.Errorf("%d sessions, %d waiting, want none", tr.Sessions(), len(tr.waiting))
	}
}

func TestControlSegmentsAllocateNothing(t *testing.T) {
	tr := NewTracker()
	c := segment([]byte("PASV\r\n"), nil, 1, packet.TCPAck, true, 0)
	s := segment([]byte(pasvReply), nil, 5020, packet.TCPAck, true, 0)
	pc, ps := decode(t, c), decode(t, s)
	buf := make([]byte, Room(len(s)))
	tr.FromClient(1, &control4, pc, (*packet.Vnet)(c), true)
	if n := testing.AllocsPerRun(100, func() {
		tr.FromClient(1, &control4, pc, (*packet.Vnet)(c), true)
		r, found := tr.FromServer(1, &control4, ps, (*packet.Vnet)(s), true)
		if found == Named {
			tr.Answer(1, &r, &control4, 40000)
		}
		if _, _, ok := r.Rewrite(buf, s, ps, 1500); !ok || found == Nothing {
			t.Fatal("no reply")
		}
	}); n != 0 {
		t.Errorf("%v allocations per command and reply, want 0", n)
	}
}

// TestWorkersShareATracker is for the race detector: both directions of a connection, and its end, on different threads.
func TestWorkersShareATracker(t *testing.T) {
	tr := NewTracker()
	var all sync.WaitGroup
	for id := range uint64(4) {
		all.Go(func() {
			for range 200 {
				frame := segment([]byte("PASV\r\n"), nil, 1, packet.TCPAck, true, 0)
				tr.FromClient(id, &control4, decode(t, frame), (*packet.Vnet)(frame), true)
				tr.Claimed(100+id, control4.Client, control4.Virtual, 40000+uint16(id))
			}
		})
		all.Go(func() {
			for range 200 {
				frame := segment([]byte(pasvReply), nil, 5020, packet.TCPAck, true, 0)
				p := decode(t, frame)
				if r, found := tr.FromServer(id, &control4, p, (*packet.Vnet)(frame), true); found == Named {
					tr.Answer(id, &r, &control4, 40000+uint16(id))
					tr.Opens(id, 200+id)
				}
			}
		})
	}
	all.Go(func() {
		for i := range 100 {
			tr.Sweep(func(id uint64) bool { return i%2 == 0 }, func(uint64) {})
		}
	})
	all.Wait()
	tr.Sweep(func(uint64) bool { return false }, func(uint64) {})
	if tr.Sessions() != 0 {
		t.Errorf("%d sessions left", tr.Sessions())
	}
}
