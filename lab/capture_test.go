package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// marked is a frame of EtherType 0x88b5, for local experiments (IEEE 802), from client1 to all.
func marked(topo *Topology, payload string) []byte {
	frame := append(bytes.Repeat([]byte{0xff}, 6), topo.Clients[0].Legs[0].MAC...)
	return append(append(frame, 0x88, 0xb5), payload...)
}

// thatIs matches a frame with exactly these bytes.
func thatIs(frame []byte) func(CapturedFrame) bool {
	return func(f CapturedFrame) bool { return bytes.Equal(f.Data, frame) }
}

func TestCaptureSeesBothDirections(t *testing.T) {
	topo := DR(t, Config{})
	client, director := topo.Clients[0], topo.Directors[0]
	sender, err := client.Capture("eth0")
	must(t, err)
	receiver, err := director.Capture("eth0")
	must(t, err)
	before := time.Now()
	frame := marked(topo, "both ways: 0123456789 0123456789 0123456789")
	sendFrames(t, client.Namespace, "eth0", frame)
	if _, err := receiver.Wait(shortly(t), thatIs(frame)); err != nil {
		t.Error(err)
	}
	for _, side := range []struct {
		name    string
		capture *Capture
		out     bool
		kind    uint8
	}{{"client1", sender, true, unix.PACKET_OUTGOING}, {"director1", receiver, false, unix.PACKET_BROADCAST}} {
		frames := side.capture.Stop()
		i := slices.IndexFunc(frames, thatIs(frame))
		if i < 0 {
			t.Errorf("%s has not seen the frame", side.name)
			continue
		}
		f := frames[i]
		if f.Out != side.out || f.PacketType != side.kind || f.PartialChecksum || f.SegmentSize != 0 {
			t.Errorf("%s: %+v, want Out %v, PacketType %d", side.name, f, side.out, side.kind)
		}
		if f.Time.Before(before.Add(-time.Millisecond)) || f.Time.After(time.Now()) {
			t.Errorf("%s: time %v is not that of the test, %v", side.name, f.Time, before)
		}
		if side.capture.Dropped() != 0 || side.capture.Err() != nil {
			t.Errorf("%s: lost %d, %v", side.name, side.capture.Dropped(), side.capture.Err())
		}
	}
}

func TestStopReturnsWhatCameBeforeIt(t *testing.T) {
	topo := DR(t, Config{})
	const many = 500
	witness, err := topo.Directors[0].Capture("eth0")
	must(t, err)
	capture, err := topo.Directors[0].Capture("eth0") // the kernel serves the latest first
	must(t, err)
	frame, last := marked(topo, "one of many"), marked(topo, "the last one")
	capture.mu.Lock() // the reader falls behind, and most frames stay in the socket
	burst := append(slices.Repeat([][]byte{frame}, many), last)
	sendFrames(t, topo.Clients[0].Namespace, "eth0", burst...)
	_, err = witness.Wait(shortly(t), thatIs(last))
	must(t, err)
	must(t, capture.file.SetReadDeadline(time.Unix(1, 0)))
	capture.mu.Unlock()
	got := 0
	for _, f := range capture.Stop() {
		if bytes.Equal(f.Data, frame) {
			got++
		}
	}
	if got != many {
		t.Errorf("Stop() returned %d of %d frames, lost %d, %v", got, many, capture.Dropped(), capture.Err())
	}
}

func TestCapturePutsTheVLANTagBack(t *testing.T) {
	topo := DR(t, Config{})
	capture, err := topo.Directors[0].Capture("eth0")
	must(t, err)
	frame := marked(topo, "tagged")
	frame = slices.Insert(frame, 12, 0x81, 0x00, 0x60, 0x07) // 802.1Q, priority 3, VLAN 7
	sendFrames(t, topo.Clients[0].Namespace, "eth0", frame)
	if _, err := capture.Wait(shortly(t), thatIs(frame)); err != nil {
		t.Errorf("%v; frames: %+v", err, capture.Frames())
	}
}

func TestCaptureOutlivesAPulledCable(t *testing.T) {
	topo := DR(t, Config{})
	director := topo.Directors[0]
	capture, err := director.Capture("eth0")
	must(t, err)
	must(t, director.SetUp("eth0", false))
	must(t, director.SetUp("eth0", true))
	frame := marked(topo, "after")
	// The bridge takes a moment to see the port again.
	ctx := shortly(t)
	for {
		sendFrames(t, topo.Clients[0].Namespace, "eth0", frame)
		wait, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		_, err := capture.Wait(wait, thatIs(frame))
		cancel()
		if err == nil {
			break
		}
		must(t, ctx.Err())
	}
	if capture.Stop(); capture.Err() != nil {
		t.Error(capture.Err())
	}
}

func TestWaitEndsWithItsContextAndWithTheCapture(t *testing.T) {
	topo := DR(t, Config{})
	capture, err := topo.Directors[0].Capture("eth0")
	must(t, err)
	never := func(CapturedFrame) bool { return false }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := capture.Wait(ctx, never); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with a cancelled context = %v", err)
	}
	time.AfterFunc(10*time.Millisecond, func() { capture.Stop() })
	if _, err := capture.Wait(t.Context(), never); err == nil {
		t.Error("Wait returned no error at the capture's end")
	}
}

func TestWritePcapIsReadByOthers(t *testing.T) {
	frames := []CapturedFrame{
		{Time: time.Unix(1_790_000_000, 123_456_789), Data: bytes.Repeat([]byte{1}, 60)},
		{Time: time.Unix(1_790_000_001, 1), Out: true, Data: bytes.Repeat([]byte{2}, 65_226)},
	}
	var file bytes.Buffer
	must(t, WritePcap(&file, frames))
	r, err := pcapgo.NewReader(&file)
	must(t, err)
	if r.LinkType() != layers.LinkTypeEthernet {
		t.Errorf("link type %v", r.LinkType())
	}
	for i, f := range frames {
		data, info, err := r.ReadPacketData()
		must(t, err)
		if !bytes.Equal(data, f.Data) || !info.Timestamp.Equal(f.Time) || info.Length != len(f.Data) {
			t.Errorf("frame %d: %d bytes at %v (%+v), want %d at %v", i, len(data), info.Timestamp, info, len(f.Data), f.Time)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Errorf("after the last frame: %v", err)
	}
}
