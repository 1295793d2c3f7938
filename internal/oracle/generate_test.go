package main

import (
	"encoding/json"
	"testing"

	"uvs/internal/conformance"
)

// A run without the kernel: every step that is generated must be one that a frame can be built of and uvs can replay.
func TestSequencesAreReplayable(t *testing.T) {
	for index := range 60 {
		g := generate(1, index)
		build := conformance.NewBuilder(&conformance.Trace{})
		for range 80 {
			s := g.next()
			g.observe(s)
			g.trace.Steps = append(g.trace.Steps, s)
			if s["pkt"] == nil {
				continue
			}
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var read conformance.Step
			if err := json.Unmarshal(b, &read); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
			if _, frame, err := build.Frame(&read); err != nil || len(frame) == 0 {
				t.Fatalf("%s: %v", b, err)
			}
		}
		b, err := g.trace.encode()
		if err != nil {
			t.Fatal(err)
		}
		var back trace
		if err := json.Unmarshal(b, &back); err != nil || len(back.Steps) != len(g.trace.Steps) {
			t.Fatalf("the trace's text has %d steps of %d: %v", len(back.Steps), len(g.trace.Steps), err)
		}
	}
}

func TestListingsOfTheKernel(t *testing.T) {
	list := "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n" +
		"TCP  0A090064:0050 rr \n  -> 0A01000B:1F90      Masq    3      1          2         \nFWM  00000011 wlc persistent 60 FFFFFFFF\n"
	got, err := counts(list)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(got); string(b) != `{"FWM 17":[],"TCP 10.9.0.100:80":[["10.1.0.11:8080","Masq",3,1,2]]}` {
		t.Errorf("counts() = %s", b)
	}
}
