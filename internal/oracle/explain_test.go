package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"uvs/dataplane"
	"uvs/internal/conformance"
	"uvs/sched"
)

// TestExplainAgreesWithWhatHappens asks, before each of more than ten thousand packets of random sequences, what will become of
// it, and then sends it: over all schedulers, with persistence, marks, thresholds, settings and changes in mid-run.
func TestExplainAgreesWithWhatHappens(t *testing.T) {
	schedulers := append(slices.Clone(schedulers), "twos", "rt")
	if len(schedulers) != len(sched.Names()) {
		t.Fatalf("%d schedulers of %v", len(schedulers), sched.Names())
	}
	cases, byVerdict := 0, map[dataplane.Verdict]int{}
	for index := 0; cases < 10000; index++ {
		g := generate(5, index)
		d, err := conformance.NewDirector()
		if err != nil {
			t.Fatal(err)
		}
		run := func(line string) { d.IPVSAdm(line, "") } // what is refused is part of it
		for name, v := range g.trace.Sysctl {
			if err := d.Sysctl(name, v); err != nil {
				t.Fatal(err)
			}
		}
		for _, line := range g.trace.SetupSh {
			if err := d.Shell(line); err != nil {
				t.Fatal(err)
			}
		}
		v, s := g.services[0], schedulers[index%len(schedulers)]
		for _, line := range g.trace.Setup {
			if strings.HasPrefix(line, fmt.Sprintf("-A %s %s ", v.flag, v.name)) {
				line = strings.Replace(line, "-s "+v.scheduler, "-s "+s, 1)
			}
			run(line)
		}
		build := conformance.NewBuilder(&conformance.Trace{})
		for range 100 {
			step := g.next()
			if line, ok := step["ipvs"].(string); ok {
				run(line)
			}
			if step["pkt"] == nil {
				continue
			}
			read, wire, frame := built(t, build, step)
			foretold, ok := d.Explain(frame)
			d.Verdict()
			sent := d.Inject(wire, frame)
			got, brief := d.Verdict(), conformance.Briefly(read, sent)
			step["to"], step["fwd"] = brief.To, brief.Fwd
			g.observe(step)
			d.Pass(2000000)
			if wire != 0 || !ok || step["badcsum"] != nil || step["nocsum"] != nil { // nobody asks about damaged packets
				continue
			}
			cases++
			byVerdict[got]++
			if got != foretold.Verdict {
				t.Fatalf("sequence %d, %s: %v was foretold, it was %v\n%s", index, s, foretold.Verdict, got, text(step))
			}
			if got.Passed() || got.Dropped() || got.Answered() || got == dataplane.ForwardedLocal {
				continue
			}
			if station := conformance.Describe(sent[0])["eth"]; !strings.HasSuffix(lastPart(foretold.ServerAddr.String()), lastPart(fmt.Sprint(station))) {
				t.Fatalf("sequence %d, %s: %v was foretold, it went to %v\n%s", index, s, foretold.ServerAddr, station, text(step))
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cases: %v", cases, byVerdict)
	for _, v := range []dataplane.Verdict{dataplane.ForwardedDR, dataplane.ForwardedNAT, dataplane.ForwardedTUN, dataplane.ForwardedLocal, dataplane.AnsweredICMP, dataplane.AnsweredReset, dataplane.DropNoServer} {
		if byVerdict[v] == 0 {
			t.Errorf("no case of %v", v)
		}
	}
}

// lastPart is the number of a real server, which its address ends with in both families.
func lastPart(address string) string { return address[strings.LastIndexAny(address, ".:")+1:] }

func built(t *testing.T, b *conformance.Builder, s step) (*conformance.Step, int, []byte) {
	t.Helper()
	var read conformance.Step
	if err := json.Unmarshal([]byte(text(s)), &read); err != nil {
		t.Fatal(err)
	}
	wire, frame, err := b.Frame(&read)
	if err != nil {
		t.Fatal(err)
	}
	return &read, wire, frame
}

func text(s step) string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
