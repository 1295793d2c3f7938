package bench

import (
	"maps"
	"testing"
	"time"
)

func TestPacketFigures(t *testing.T) {
	for _, tt := range []struct {
		name string
		u    usage
		null float64
		want map[string]float64
	}{
		{"a forwarder that loses half of what is offered",
			usage{took: 2 * time.Second, offered: 4e6, arrived: 2e6, director: 2 * time.Second, sender: 4 * time.Second}, 600,
			map[string]float64{Mpps: 1, OfferedMpps: 2, DirectorNs: 1000, ReceiveNs: 400, TotalNs: 1400, PerCPUSecond: 1e3 / 1400.}},
		{"the kernel has no process: all is receiving",
			usage{took: time.Second, offered: 1e6, arrived: 1e6, sender: 1500 * time.Millisecond}, 500,
			map[string]float64{Mpps: 1, OfferedMpps: 1, DirectorNs: 0, ReceiveNs: 1000, TotalNs: 1000, PerCPUSecond: 1}},
		{"a null receiver that cost more, by chance: receiving costs nothing, not less",
			usage{took: time.Second, offered: 1e6, arrived: 1e6, director: time.Second, sender: time.Second}, 1200,
			map[string]float64{Mpps: 1, OfferedMpps: 1, DirectorNs: 1000, ReceiveNs: 0, TotalNs: 1000, PerCPUSecond: 1}},
		{"nothing arrived: no figure per packet",
			usage{took: time.Second, offered: 1e6, director: time.Second, sender: time.Second}, 400,
			map[string]float64{Mpps: 0, OfferedMpps: 1, ReceiveNs: 600}},
		{"nothing was offered", usage{took: time.Second}, 400, map[string]float64{}},
	} {
		if got := packetFigures(tt.u, tt.null); !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestPerThing(t *testing.T) {
	if got := perThing(3*time.Second, 60_000, 1000); got != 50 {
		t.Errorf("3 s for 60,000 requests are %v ms per 1,000, want 50", got)
	}
	if got := perThing(time.Second, 4e9, 1e9); got != 250 {
		t.Errorf("1 s for 4 GB are %v ms per GB, want 250", got)
	}
	if got := perThing(time.Second, 0, 1000); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
