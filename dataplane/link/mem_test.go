package link

import (
	"bytes"
	"syscall"
	"testing"

	"uvs/packet"
)

// eth is an Ethernet frame of n bytes to a MAC address ending in last.
func eth(last byte, n int) []byte {
	b := make([]byte, n)
	copy(b, []byte{2, 0, 0, 0, 0, last, 2, 0, 0, 0, 0, 0xee, 0x88, 0xb5})
	for i := 14; i < n; i++ {
		b[i] = byte(i)
	}
	return b
}

func TestMemHandsOutWhatWasInjected(t *testing.T) {
	m := NewMem(MemConfig{MAC: [6]byte{2, 0, 0, 0, 0, 1}})
	v := packet.Vnet{1: packet.GSOTCPv4}
	m.Inject(eth(1, 60))
	m.InjectVnet(v, eth(2, 70))
	m.InjectFrame(Frame{Buf: append(v[:], eth(3, 80)...), Tagged: true, VLAN: 5, TPID: 0x8100, Truncated: true, Type: 2})
	frames := make([]Frame, 2)
	if n := m.Recv(frames); n != 2 {
		t.Fatalf("Recv = %d, want 2", n)
	}
	if f := frames[0]; !bytes.Equal(f.Eth(), eth(1, 60)) || *f.Vnet() != (packet.Vnet{}) || f.Type != typeHost {
		t.Errorf("first frame %+v", f)
	}
	if f := frames[1]; !bytes.Equal(f.Eth(), eth(2, 70)) || *f.Vnet() != v || f.Type != typeOtherHost {
		t.Errorf("second frame %+v", f)
	}
	kept := frames[0].Buf
	if n := m.Recv(frames[:1]); n != 1 {
		t.Fatalf("Recv = %d, want 1", n)
	}
	if f := frames[0]; !f.Tagged || f.VLAN != 5 || f.TPID != 0x8100 || !f.Truncated || f.Type != 2 || f.Headroom() < 64 {
		t.Errorf("third frame %+v", f)
	}
	if m.Recv(frames) != 0 {
		t.Error("Recv hands out more than was injected")
	}
	m.Release()
	if kept[0] != rubbish || kept[len(kept)-1] != rubbish {
		t.Error("a released frame can still be read")
	}
	if st := m.Stats(); st.RxFrames != 3 || st.RxBytes != 210 || st.RxTruncated != 1 {
		t.Errorf("counted %+v", st)
	}
	if m.FD() != -1 || m.Close() != nil {
		t.Error("FD or Close")
	}
}

func TestMemReadsSentFramesAtFlush(t *testing.T) {
	m := NewMem(MemConfig{})
	f := append(make([]byte, packet.VnetLen), eth(1, 60)...)
	m.Send(f[:30], f[30:])
	if len(m.Sent()) != 0 {
		t.Error("sent before Flush")
	}
	f[69] = 0x77
	m.Flush()
	f[69] = 0
	sent := m.Sent()
	if len(sent) != 1 || sent[0][69] != 0x77 || len(sent[0]) != 70 {
		t.Errorf("sent % x, want the bytes at the time of Flush", sent)
	}
	if len(m.Sent()) != 0 {
		t.Error("Sent gives a frame twice")
	}
	for range memBatch + 1 {
		m.Send(f, nil)
	}
	if n := len(m.Sent()); n != memBatch {
		t.Errorf("a full queue flushed %d frames, want %d", n, memBatch)
	}
}

func TestMemRefusesLikeTheKernel(t *testing.T) {
	m := NewMem(MemConfig{MTU: 1500, Queue: 2, Refuse: func(f []byte) syscall.Errno {
		if f[len(f)-1] == 0xff {
			return syscall.ENOBUFS
		}
		return 0
	}})
	send := func(v packet.Vnet, eth []byte) { m.Send(append(v[:], eth...), nil) }
	send(packet.Vnet{}, eth(1, 1514))
	send(packet.Vnet{}, eth(1, 1515))
	send(packet.Vnet{1: packet.GSOTCPv4}, eth(1, 20000))
	tag := eth(1, 1518)
	tag[12], tag[13] = 0x81, 0
	send(packet.Vnet{}, tag)
	send(packet.Vnet{}, eth(1, 13))
	send(packet.Vnet{}, append(eth(1, 60), 0xff))
	m.Send(nil, nil)
	m.Flush()
	if st := m.Stats(); st.TxFrames != 3 || st.TxTooLong != 1 || st.TxError != 2 || st.TxNoBuffer != 1 ||
		st.TxBytes != 1514+20000+1518 {
		t.Errorf("counted %+v", st)
	}
	for range 3 {
		m.Inject(eth(1, 60))
	}
	if n := m.Recv(make([]Frame, 5)); n != 2 || m.Stats().RxRingFull != 1 {
		t.Errorf("Recv = %d, %+v; want 2 and one dropped", n, m.Stats())
	}
}

func TestMemPairCarriesBothWays(t *testing.T) {
	a, b := NewMemPair(MemConfig{MAC: [6]byte{2, 0, 0, 0, 0, 1}}, MemConfig{MAC: [6]byte{2, 0, 0, 0, 0, 2}})
	frames := make([]Frame, 4)
	for _, row := range []struct {
		from, to *Mem
		last     byte
		want     uint8
	}{{a, b, 2, typeHost}, {a, b, 9, typeOtherHost}, {b, a, 1, typeHost}} {
		v := packet.Vnet{0: packet.VnetDataValid}
		row.from.Send(append(v[:], eth(row.last, 60)...), nil)
		row.from.Flush()
		if n := row.to.Recv(frames); n != 1 || frames[0].Type != row.want || *frames[0].Vnet() != v ||
			!bytes.Equal(frames[0].Eth(), eth(row.last, 60)) {
			t.Errorf("to %d: received %d, %+v", row.last, n, frames[0])
		}
		row.to.Release()
	}
	for dst, want := range map[byte]uint8{0xff: typeBroadcast, 0x01: typeMulticast} {
		f := eth(0, 60)
		copy(f, bytes.Repeat([]byte{dst}, 6))
		a.Inject(f)
		if a.Recv(frames); frames[0].Type != want {
			t.Errorf("to %x...: type %d, want %d", dst, frames[0].Type, want)
		}
	}
	a.Inject([]byte{1, 2})
	if n := a.Recv(frames); n != 1 || len(frames[0].Eth()) != 2 {
		t.Error("a frame of two bytes is not handed out as it is")
	}
}

func TestReplayRestoresItsFrames(t *testing.T) {
	var batch []Frame
	for i := range 5 {
		batch = append(batch, Frame{Buf: append(make([]byte, packet.VnetLen), eth(byte(i), 60+i)...), VLAN: uint16(i)})
	}
	m := NewReplay(batch...)
	frames := make([]Frame, 3)
	for round := range 3 {
		for _, want := range []int{3, 2, 0} {
			n := m.Recv(frames)
			if n != want {
				t.Fatalf("round %d: Recv = %d, want %d", round, n, want)
			}
			for _, f := range frames[:n] {
				if !bytes.Equal(f.Eth(), eth(byte(f.VLAN), 60+int(f.VLAN))) {
					t.Errorf("round %d: frame %d differs", round, f.VLAN)
				}
				clear(f.Buf)
				m.Send(f.Buf, nil)
			}
		}
		m.Flush()
		m.Release()
	}
	if st := m.Stats(); st.TxFrames != 15 || st.RxFrames != 15 || st.TxBytes != st.RxBytes {
		t.Errorf("counted %+v", st)
	}
}

func TestReplayAllocatesNothing(t *testing.T) {
	m := NewReplay(Frame{Buf: append(make([]byte, packet.VnetLen), eth(1, 60)...)})
	frames := make([]Frame, 8)
	if n := testing.AllocsPerRun(1000, func() { replayOnce(m, frames) }); n != 0 {
		t.Errorf("%v allocations per frame", n)
	}
}

func replayOnce(m *Mem, frames []Frame) {
	n := m.Recv(frames)
	for i := range frames[:n] {
		m.Send(frames[i].Buf, nil)
	}
	m.Flush()
	m.Release()
}

func BenchmarkMemReplay(b *testing.B) {
	var batch []Frame
	for i := range 64 {
		batch = append(batch, Frame{Buf: append(make([]byte, packet.VnetLen), eth(byte(i), 60)...)})
	}
	m := NewReplay(batch...)
	frames := make([]Frame, 64)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		replayOnce(m, frames)
		n += 64
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/frame")
}
