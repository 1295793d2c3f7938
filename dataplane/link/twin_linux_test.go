package link

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"uvs/packet"
)

// randomFrame is a frame as it may come: any length, tag, partial checksum, super-frame, destination.
func randomFrame(r *rand.Rand, seq int) []byte {
	var f []byte
	switch r.IntN(5) {
	case 0:
		f = superFrame(seq, 1449+r.IntN(63000))
	case 1:
		f = superFrame(seq, 1+r.IntN(1400))
		(*packet.Vnet)(f).SetGSOType(packet.GSONone)
		(*packet.Vnet)(f).SetGSOSize(0)
	default:
		f = testFrame(seq, 18+r.IntN(1497))
	}
	switch r.IntN(8) {
	case 0:
		copy(f[packet.VnetLen:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	case 1:
		f[packet.VnetLen] = 3
	}
	if r.IntN(4) == 0 {
		f = InsertVLAN(make([]byte, len(f)+4), f, 0x8100, uint16(r.IntN(1<<16)))
	}
	return f
}

// near --- far, received by ring and simple links side by side: every socket gets its copy
func TestRingReceivesWhatTheSimpleLinkReceives(t *testing.T) {
	s := twoEnds(t)
	near := s.open(Config{Interface: "near"})
	var twins []*Socket
	for _, k := range kinds {
		if !k.cfg.NoVnet {
			twins = append(twins, s.open(k.cfg.on("far")))
		}
	}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	const rounds, batch = 40, 50
	seen := make([][]got, len(twins))
	for round := range rounds {
		for i := range batch {
			near.Send(randomFrame(r, round*batch+i), nil)
		}
		near.Flush()
		for i, l := range twins {
			seen[i] = append(seen[i], takeAll(l)...)
		}
	}
	if st := near.Stats(); st.TxFrames != rounds*batch {
		t.Fatalf("sent %+v, want %d frames", st, rounds*batch)
	}
	for i := range twins {
		seen[i] = append(seen[i], takeAll(twins[i])...)
		if len(seen[i]) != rounds*batch {
			t.Fatalf("%s received %d of %d frames: %+v", kinds[i].name, len(seen[i]), rounds*batch, twins[i].Stats())
		}
	}
	for i := range seen[0] {
		a := seen[0][i]
		for k := 1; k < len(twins); k++ {
			b := seen[k][i]
			if a.vnet != b.vnet || a.meta != b.meta || !bytes.Equal(a.eth, b.eth) {
				t.Fatalf("frame %d differs: %s % x %+v, %d bytes; %s % x %+v, %d bytes", i,
					kinds[0].name, a.vnet, a.meta, len(a.eth), kinds[k].name, b.vnet, b.meta, len(b.eth))
			}
		}
	}
}

// takeAll receives and copies out what is there.
func takeAll(l Link) (all []got) {
	frames := make([]Frame, 13)
	for {
		n := l.Recv(frames)
		for i := range frames[:n] {
			all = append(all, copyOut(&frames[i]))
		}
		l.Release()
		if n == 0 {
			return all
		}
	}
}

func TestPushedTagIsTheInsertedOne(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(k.cfg.on("near")), s.open(k.cfg.on("far"))
			f := superFrame(1, 1000)
			(*packet.Vnet)(f).SetGSOType(packet.GSONone)
			big := superFrame(2, 20000)
			near.Send(f, nil)
			near.Send(big, nil)
			near.Flush()
			time.Sleep(20 * time.Millisecond)
			frames := make([]Frame, 4)
			n := far.Recv(frames)
			if want := map[bool]int{true: 1, false: 2}[k.cfg.NoVnet]; n != want {
				t.Fatalf("received %d frames, want %d", n, want)
			}
			for _, f := range frames[:n] {
				if f.Headroom() < 64 {
					t.Errorf("headroom %d, want 64 or more", f.Headroom())
				}
				want := InsertVLAN(make([]byte, len(f.Buf)+4), f.Buf, 0x8100, 0x0123)
				room := f.Headroom()
				if !f.PushVLAN(0x8100, 0x0123) || !bytes.Equal(f.Buf, want) || f.Headroom() != room-4 {
					t.Errorf("PushVLAN gives % x, headroom %d; want % x, %d", f.Buf[:40], f.Headroom(), want[:40], room-4)
				}
				if f.Prepend(f.Headroom()+1) || !f.Prepend(f.Headroom()) || f.Headroom() != 0 {
					t.Error("Prepend does not keep to the headroom")
				}
				clear(f.Buf) // all of it is ours
			}
			far.Release()
			near.Send(testFrame(3, 60), nil)
			near.Flush()
			if n := len(receive(t, far, 1)); n != 1 {
				t.Errorf("received %d frames after the slots were overwritten, want 1", n)
			}
		})
	}
}
