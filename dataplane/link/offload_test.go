package link

import (
	"bytes"
	"testing"

	"uvs/packet"
)

func TestInsertVLANShiftsTheHeadersOffsets(t *testing.T) {
	v := packet.Vnet{}
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetGSOType(packet.GSOTCPv4)
	v.SetHdrLen(54)
	v.SetGSOSize(1448)
	v.SetCsumStart(34)
	v.SetCsumOffset(16)
	frame := append(v[:], eth(1, 60)...)
	for _, headLen := range []int{vnetMACs, vnetMACs + 1, vnetMACs + 2, len(frame)} {
		dst := make([]byte, 100)
		got := InsertVLAN(dst, frame[:headLen], 0x88a8, 0xe123)
		whole := append(bytes.Clone(got), frame[headLen:]...)
		w := (*packet.Vnet)(whole)
		if w.CsumStart() != 38 || w.HdrLen() != 58 || w.CsumOffset() != 16 || w.GSOSize() != 1448 ||
			w.Flags() != v.Flags() || w.GSOType() != v.GSOType() {
			t.Errorf("head of %d: header % x", headLen, w)
		}
		want := bytes.Join([][]byte{frame[10:22], {0x88, 0xa8, 0xe1, 0x23}, frame[22:]}, nil)
		if !bytes.Equal(whole[10:], want) {
			t.Errorf("head of %d: % x, want % x", headLen, whole[10:], want)
		}
	}
	plain := append(make([]byte, packet.VnetLen), eth(1, 60)...)
	if got := InsertVLAN(make([]byte, 100), plain, 0x8100, 1); *(*packet.Vnet)(got) != (packet.Vnet{}) {
		t.Errorf("a header of zeros became % x", got[:10])
	}
}

func TestInsertVLANRefusesWhatDoesNotFit(t *testing.T) {
	frame := append(make([]byte, packet.VnetLen), eth(1, 60)...)
	if InsertVLAN(make([]byte, 100), frame[:vnetMACs-1], 0x8100, 1) != nil {
		t.Error("a head without both MAC addresses is accepted")
	}
	if InsertVLAN(make([]byte, len(frame)+3), frame, 0x8100, 1) != nil {
		t.Error("a destination too short is accepted")
	}
	f := Frame{Buf: frame}
	if f.Headroom() != 0 || f.PushVLAN(0x8100, 1) || f.Prepend(1) || f.Prepend(-1) || !f.Prepend(0) {
		t.Error("a frame from no link has headroom")
	}
}

func TestHeadroomSurvivesCuttingTheFrame(t *testing.T) {
	m := NewMem(MemConfig{})
	m.Inject(eth(1, 60))
	frames := make([]Frame, 1)
	m.Recv(frames)
	f := &frames[0]
	room, last := f.Headroom(), f.Buf[20]
	f.Buf = f.Buf[20:40]
	if f.Headroom() != room+20 {
		t.Errorf("Headroom() = %d after 20 bytes were cut off in front, want %d", f.Headroom(), room+20)
	}
	if !f.Prepend(3) || len(f.Buf) != 23 || f.Buf[3] != last {
		t.Errorf("Prepend(3) gives % x", f.Buf)
	}
}

// FuzzFinishChecksum compares with a sum taken word by word over the frame in one piece.
func FuzzFinishChecksum(f *testing.F) {
	f.Add(append(make([]byte, packet.VnetLen), eth(1, 60)...), uint16(14), uint16(16), uint16(37)) // cut at odd offset
	f.Add(append(make([]byte, packet.VnetLen), eth(1, 61)...), uint16(15), uint16(0), uint16(15))  // all in the body
	f.Add(append(make([]byte, packet.VnetLen), eth(1, 60)...), uint16(34), uint16(25), uint16(59)) // field at the cut
	f.Add(append(make([]byte, packet.VnetLen), eth(1, 60)...), uint16(65535), uint16(65535), uint16(5))
	f.Fuzz(func(t *testing.T, frame []byte, start, offset, cut uint16) {
		if len(frame) < packet.VnetLen {
			return
		}
		v := (*packet.Vnet)(frame)
		v.SetFlags(packet.VnetNeedsCsum | packet.VnetDataValid)
		v.SetCsumStart(int(start))
		v.SetCsumOffset(int(offset))
		n := packet.VnetLen + min(int(cut), len(frame)-packet.VnetLen)
		head, body := bytes.Clone(frame[:n]), bytes.Clone(frame[n:])
		ok := finishChecksum(head, body)
		got := append(head, body...)

		want, eth := bytes.Clone(frame), bytes.Clone(frame[packet.VnetLen:])
		fits := int(start)+int(offset)+2 <= len(eth)
		if fits {
			var sum uint32
			for i := int(start); i < len(eth); i += 2 {
				sum += uint32(eth[i]) << 8
				if i+1 < len(eth) {
					sum += uint32(eth[i+1])
				}
				sum = sum&0xffff + sum>>16
			}
			c := ^uint16(sum)
			if c == 0 {
				c = 0xffff
			}
			at := packet.VnetLen + int(start) + int(offset)
			want[at], want[at+1] = byte(c>>8), byte(c)
			want[0] &^= packet.VnetNeedsCsum
		}
		if ok != fits || !bytes.Equal(got, want) {
			t.Errorf("start %d offset %d cut %d: %v, % x; want %v, % x", start, offset, cut, ok, got, fits, want)
		}
	})
}
