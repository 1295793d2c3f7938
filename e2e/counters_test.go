package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"uvs/lab"
)

// counters is a line of uvsadm -L -n --stats --exact.
type counters struct{ Conns, InPkts, OutPkts, InBytes, OutBytes int }

// stats is the counters of a service and its real servers, by address and port.
func (r *rig) stats(flag, service string) map[string]counters {
	r.t.Helper()
	all := map[string]counters{}
	for line := range strings.Lines(r.adm("-L", "-n", flag, service, "--stats", "--exact")) {
		f := strings.Fields(line)
		if len(f) != 7 || f[0] == "Prot" {
			continue
		}
		var n [5]int
		for i := range n {
			var err error
			n[i], err = strconv.Atoi(f[2+i])
			must(r.t, err)
		}
		all[f[1]] = counters{n[0], n[1], n[2], n[3], n[4]}
	}
	return all
}

// expectStats waits until the counters of a service are so: they move with the estimator, every two seconds.
func (r *rig) expectStats(flag, service string, want counters) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("--stats of %s shows %+v", service, want), func() (bool, any) {
		got := r.stats(flag, service)[service]
		return got == want, got
	})
}

// The counts are those of the packets that the client sent and, in NAT, got.
func TestStatsCountWhatWentThrough(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.OffloadsOff = true // so that what the client counts are packets
		r := newRig(t, cfg)
		stop := capture(t, r.Clients[0].Namespace, "eth0")
		r.count(10)
		_, err := lab.Upload(shortly(t), r.client(), r.url(), 100_000)
		must(t, err)
		r.awaitQuiet()
		var want counters
		for _, w := range stop() {
			switch {
			case w.proto != protoTCP:
			case w.Out:
				want.InPkts++
				want.InBytes += len(w.Data) - etherHeader
			default:
				want.OutPkts++
				want.OutBytes += len(w.Data) - etherHeader
			}
		}
		want.Conns = 11
		if r.direct {
			want.OutPkts, want.OutBytes = 0, 0 // go past the director
		}
		r.expectStats("-t", r.webService(), want)
		got := r.stats("-t", r.webService())
		one, two := got[r.webServer(1)], got[r.webServer(2)]
		if sum := (counters{one.Conns + two.Conns, one.InPkts + two.InPkts, one.OutPkts + two.OutPkts, one.InBytes + two.InBytes, one.OutBytes + two.OutBytes}); sum != want {
			t.Errorf("--stats of the servers = %+v and %+v, in all %+v, want %+v", one, two, sum, want)
		}

		r.adm("-Z")
		for who, c := range r.stats("-t", r.webService()) {
			if c != (counters{}) {
				t.Errorf("after -Z %s has %+v", who, c)
			}
		}
		r.count(2)
		r.awaitQuiet()
		eventually(t, "--stats after -Z shows the two requests since", func() (bool, any) {
			got := r.stats("-t", r.webService())[r.webService()]
			return got.Conns == 2 && got.InPkts > 0, got
		})
		if l := r.list("-t", r.webService())[r.webServer(1)]; l.inactive == "0" {
			t.Errorf("-Z took the connections too: %+v", l)
		}
	})
}
