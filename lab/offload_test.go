package lab

import (
	"net/netip"
	"strings"
	"testing"
)

// received downloads a megabyte and returns the data frames that came in at client1's eth0.
func received(t *testing.T, topo *Topology, from *Host) []CapturedFrame {
	t.Helper()
	client := topo.Clients[0]
	capture, err := client.Capture("eth0")
	must(t, err)
	base := "http://" + netip.AddrPortFrom(from.Addr(), 80).String()
	_, err = Download(shortly(t), client.HTTPClient(), base, 1<<20)
	must(t, err)
	var in []CapturedFrame
	for _, f := range capture.Stop() {
		if !f.Out && len(f.Data) > 1000 {
			in = append(in, f)
		}
	}
	if len(in) == 0 || capture.Dropped() > 0 || capture.Err() != nil {
		t.Fatalf("captured %d data frames, lost %d, %v", len(in), capture.Dropped(), capture.Err())
	}
	return in
}

// shape is what offloads do to frames.
type shape struct{ longest, super, partial int }

func shapeOf(frames []CapturedFrame) (s shape) {
	for _, f := range frames {
		s.longest = max(s.longest, len(f.Data))
		if f.SegmentSize > 0 {
			s.super++
		}
		if f.PartialChecksum {
			s.partial++
		}
	}
	return s
}

const fullFrame = 14 + 1500

func TestOffloadsMakeSuperFramesWithPartialChecksums(t *testing.T) {
	topo := DR(t, Config{})
	serve(t, topo)
	if got := shapeOf(received(t, topo, topo.RealServers[0])); got.longest <= fullFrame || got.super == 0 || got.partial == 0 {
		t.Errorf("frames with offloads on: %+v; want super-frames and partial checksums", got)
	}
}

func TestOffloadsOffMakesOrdinaryFrames(t *testing.T) {
	topo := DR(t, Config{OffloadsOff: true})
	serve(t, topo)
	if got := shapeOf(received(t, topo, topo.RealServers[0])); got != (shape{longest: fullFrame}) {
		t.Errorf("frames with offloads off: %+v; want none longer than %d, none partial", got, fullFrame)
	}
	for _, h := range append(topo.RealServers, topo.Clients[0], topo.Directors[0]) {
		features, err := h.Features("eth0")
		must(t, err)
		for _, name := range []string{"tx-checksum-ip-generic", "tx-scatter-gather", "tx-tcp-segmentation",
			"tx-tcp6-segmentation", "tx-generic-segmentation", "tx-udp-segmentation", "rx-gro"} {
			if on, known := features[name]; on || !known {
				t.Errorf("%s of %s is on, or unknown (%v)", name, h, known)
			}
		}
	}
}

func TestEveryKindOfLinkKeepsToTheOffloadSetting(t *testing.T) {
	for _, kind := range []LinkKind{Veth, Macvlan, BridgeMaster, Tap} {
		for _, off := range []bool{false, true} {
			cfg := Config{DirectorLink: kind, OffloadsOff: off, RealServers: -1}
			t.Run(describe(cfg), func(t *testing.T) {
				topo := DR(t, cfg)
				director := topo.Directors[0]
				_, err := ServeHTTP(director.Namespace, "director1", netip.AddrPortFrom(director.Addr(), 80))
				must(t, err)
				got := shapeOf(received(t, topo, director))
				if whole := got.super > 0 && got.partial > 0; whole == off || off && got != (shape{longest: fullFrame}) {
					t.Errorf("frames from the director: %+v", got)
				}
			})
		}
	}
}

// Single segments are merged by the receiver, and then look as if sent so: also the checksum counts as partial.
func TestGROMergesWhatComesInPieces(t *testing.T) {
	topo := DR(t, Config{OffloadsOff: true})
	serve(t, topo)
	must(t, topo.Clients[0].SetFeatures("eth0", map[string]bool{"rx-gro": true}))
	if got := shapeOf(received(t, topo, topo.RealServers[0])); got.super == 0 || got.longest <= fullFrame || got.partial != got.super {
		t.Errorf("frames with GRO alone: %+v; want super-frames, and just these partial", got)
	}
}

func TestSetOffloadsSwitchesBothWays(t *testing.T) {
	topo := DR(t, Config{OffloadsOff: true})
	for _, h := range []*Host{topo.RealServers[0], topo.Clients[0]} {
		must(t, h.SetOffloads("eth0", true))
		features, err := h.Features("eth0")
		must(t, err)
		for _, name := range []string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-generic-segmentation",
			"tx-udp-segmentation", "rx-gro"} {
			if !features[name] {
				t.Errorf("%s of %s is off", name, h)
			}
		}
		for name := range features {
			if isRareOffload(name) && features[name] {
				t.Errorf("%s of %s is on", name, h)
			}
		}
	}
	serve(t, topo)
	if got := shapeOf(received(t, topo, topo.RealServers[0])); got.super == 0 || got.partial == 0 {
		t.Errorf("frames with offloads on again: %+v; want super-frames and partial checksums", got)
	}
}

// A feature that an interface cannot change is an error, not silence.
func TestStuckFeatureIsAnError(t *testing.T) {
	l := newLab(t, Options{})
	ns := newNamespace(t, l, "a")
	err := ns.SetOffloads("lo", false)
	if err == nil || !strings.Contains(err.Error(), "does not change") {
		t.Errorf("SetOffloads(lo, off) = %v; lo keeps checksums off for ever", err)
	}
	if err := ns.SetFeatures("lo", map[string]bool{"no-such-feature": true}); err == nil {
		t.Error("SetFeatures of an unknown feature succeeded")
	}
}
