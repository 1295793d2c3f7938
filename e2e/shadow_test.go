package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"uvs/control/api"
)

// shadows is what uvsadm shadow report says in JSON.
func (r *rig) shadows() (reply api.ShadowsReply) {
	r.t.Helper()
	must(r.t, json.Unmarshal([]byte(r.adm("shadow", "report", "--json")), &reply))
	return reply
}

// Schedulers on trial are offered what real clients ask for, and no client is sent elsewhere for it.
func TestShadowSchedulers(t *testing.T) {
	r := newRig(t, rigConfig{})
	if got := r.adm("shadow"); !strings.Contains(got, "No scheduler is on trial") {
		t.Errorf("at the start: %s", got)
	}
	r.adm("shadow", "add", "-t", r.webService(), "sh:sh-fallback", "wlc")
	r.adm("shadow", "add", "-u", r.udpService(), "fo")
	const asked = 40
	tally := r.count(asked)
	if tally["rs1"] != asked/2 || tally["rs2"] != asked/2 {
		t.Errorf("the service goes by rr still, but got %v", tally)
	}
	reply := r.shadows()
	if len(reply.Shadows) != 2 || reply.Missed != 0 || reply.OneIn != 1 {
		t.Fatalf("%+v", reply)
	}
	web := reply.Shadows[0]
	real, sh, wlc := web.Trials[0], web.Trials[1], web.Trials[2]
	if !real.Real || real.Scheduler != "rr" || real.Offered != asked || real.Misses+real.Differs != 0 || real.New.MaxMean != 1 {
		t.Errorf("rr: %+v", real)
	}
	// One client: sh sends it to one server, which is another than rr's half of the time.
	if sh.Offered != asked || sh.Differs != asked/2 || sh.New.MaxMean != 2 || sh.Moved != 0 || sh.Returning != asked-1 || real.Moved != asked-1 {
		t.Errorf("sh: %+v", sh)
	}
	if wlc.Offered != asked || wlc.Servers[0].Conns == 0 || wlc.Servers[1].Conns == 0 {
		t.Errorf("wlc: %+v", wlc)
	}
	// A server goes: sh moves the client, if it was that server's.
	loser := r.webServer(1)
	for _, s := range sh.Servers {
		if s.Conns > 0 {
			loser = s.Address.String()
		}
	}
	r.adm("-e", "-t", r.webService(), "-r", loser, r.method(), "-w", "0")
	r.count(2)
	if sh = r.shadows().Shadows[0].Trials[1]; sh.AfterChange != 1 || sh.MovedByChange != 1 || sh.Offered != asked+2 {
		t.Errorf("sh, whose server was quiesced: %+v", sh)
	}
	text := r.adm("shadow", "report", "-t", r.webService())
	for _, want := range []string{"tcp " + r.webService() + ", rr for ", "sh:sh-fallback  ", "wlc", r.webServer(2)} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	r.adm("shadow", "del", "-t", r.webService(), "wlc")
	r.adm("shadow", "del", "-t", r.webService())
	r.adm("shadow", "del", "-u", r.udpService())
	if left := r.shadows(); len(left.Shadows) != 0 {
		t.Errorf("left after the end: %+v", left)
	}
	r.count(4)
}
