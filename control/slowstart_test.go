package control

import (
	"testing"
	"time"

	"uvs/control/api"
	"uvs/service"
)

// parts is how many of n connections each server of a service gets at a time, by address.
func parts(f *fixture, key string, at int64, n int) map[string]int {
	vs := f.vs(key)
	got := map[string]int{}
	for range n {
		if rs := vs.Scheduler.Pick(&service.Request{Service: vs, Now: at}, vs.Servers); rs != nil {
			got[rs.Addr.Addr().String()]++
		}
	}
	return got
}

func TestSlowStart(t *testing.T) {
	now := int64(time.Hour)
	c := newFixture(t, func(cfg *Config) { cfg.Now = func() int64 { return now } })
	c.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11 -m", "-a "+web+" -r 10.1.0.12 -m")
	bare := c.vs(web).Scheduler
	r, err := c.Change(t.Context(), &api.ChangeRequest{Ops: []api.Op{setPolicy(web, api.PolicySpec{"slowstart": "100s"})}, OnError: api.Atomic})
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	if c.vs(web).Scheduler != bare {
		t.Error("servers that were there before the policy start")
	}
	back := []struct{ what, away, back string }{
		{"a weight of 0 and again one", "-e " + web + " -r 10.1.0.12 -m -w 0", "-e " + web + " -r 10.1.0.12 -m -w 1"},
		{"removal and return", "-d " + web + " -r 10.1.0.12", "-a " + web + " -r 10.1.0.12 -m"},
	}
	for _, b := range back {
		c.must(b.away)
		if got := parts(c, web, now, 10); got["10.1.0.11"] != 10 {
			t.Errorf("%s: %v while it is away", b.what, got)
		}
		c.must(b.back)
		if got := parts(c, web, now, 2000); got["10.1.0.12"] < 40 || got["10.1.0.12"] > 60 {
			t.Errorf("%s: at first %v of 2000", b.what, got)
		}
		now += int64(50 * time.Second)
		c.must("-e " + web + " -r 10.1.0.11 -m -w 1") // another table, as others' changes make
		if got := parts(c, web, now, 2000); got["10.1.0.12"] < 500 || got["10.1.0.12"] > 550 {
			t.Errorf("%s: at half time %v of 2000", b.what, got)
		}
		rows, err := c.Health(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		starting := 0
		for _, row := range rows {
			for _, f := range row.Factors {
				if starting++; f.By != "slow start" || f.Factor < 0.5 || f.Factor > 0.55 {
					t.Errorf("%s: %+v", b.what, row)
				}
			}
		}
		if starting != 1 {
			t.Errorf("%s: %d servers are said to start", b.what, starting)
		}
		c.endSlowStarts()
		if c.vs(web).Scheduler == bare {
			t.Errorf("%s: it ended early", b.what)
		}
		now += int64(50 * time.Second)
		c.endSlowStarts()
		if c.vs(web).Scheduler != bare {
			t.Errorf("%s: it doesn't end", b.what)
		}
	}
	tables := len(c.published)
	c.endSlowStarts()
	if len(c.published) != tables {
		t.Error("nothing to end, and a table is published")
	}
}
