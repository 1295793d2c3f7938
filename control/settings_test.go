package control

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/service"
)

func (f *fixture) set(pairs ...string) ([]api.Setting, error) {
	var list []api.Setting
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, api.Setting{Name: pairs[i], Value: pairs[i+1]})
	}
	return f.Set(f.t.Context(), list)
}

// TestSettingsHaveTheKernelsNamesAndDefaults holds the defaults of Documentation/networking/ipvs-sysctl.rst and of
// ip_vs_lblc.c.
func TestSettingsHaveTheKernelsNamesAndDefaults(t *testing.T) {
	want := map[string]string{
		"am_droprate": "10", "amemthresh": "1024", "backup_only": "0", "cache_bypass": "0", "conn_reuse_mode": "1",
		"conntrack": "0", "debug_level": "0", "run_estimation": "1", "drop_entry": "0", "drop_packet": "0", "expire_nodest_conn": "0", "expire_quiescent_template": "0",
		"ignore_tunneled": "0", "lblc_expiration": "86400", "lblcr_expiration": "86400", "nat_icmp_send": "0",
		"pmtu_disc": "1", "schedule_icmp": "0", "secure_tcp": "0", "sloppy_sctp": "0", "sloppy_tcp": "0", "snat_reroute": "1",
		"sync_persist_mode": "0", "sync_ports": "1", "sync_qlen_max": "0", "sync_refresh_period": "0", "sync_retries": "0",
		"sync_sock_size": "0", "sync_threshold": "3 50", "sync_version": "1",
	}
	f := newFixture(t)
	list, err := f.Settings(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, s := range list {
		names = append(names, s.Name)
		if s.Value != s.Default {
			t.Errorf("%s begins as %q, its default is %q", s.Name, s.Value, s.Default)
		}
		if short, ok := strings.CutPrefix(s.Name, "net.ipv4.vs."); ok {
			if w, known := want[short]; !known || s.Value != w {
				t.Errorf("%s = %q, want %q", s.Name, s.Value, w)
			}
			delete(want, short)
		}
	}
	if len(want) > 0 || !slices.IsSorted(names) {
		t.Errorf("missing: %v; in order: %v", want, slices.IsSorted(names))
	}
}

func TestSettingsAreSetByAnyFormOfTheirName(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"net.ipv4.vs.am_droprate", "vs.am_droprate", "net/ipv4/vs/am_droprate", "vs/am_droprate"} {
		got, err := f.set(name, "7")
		if err != nil || len(got) != 1 || got[0].Name != "net.ipv4.vs.am_droprate" || got[0].Value != "7" || got[0].Default != "10" {
			t.Errorf("set %s = %+v, %v", name, got, err)
		}
		if _, err := f.set("vs.am_droprate", "10"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := f.Settings(t.Context(), []string{"uvs.keep_template_timeout", "vs.conntrack"}); err != nil || len(got) != 2 ||
		got[0].Note != "" || got[1].Note == "" {
		t.Errorf("Settings = %+v, %v", got, err)
	}
	for _, name := range []string{"am_droprate", "net.ipv4.am_droprate", "vs.", "", "uvs.am_droprate", "net.ipv4.vs.none", "net.ipv4.uvs.keep_template_timeout"} {
		if _, err := f.Settings(t.Context(), []string{name}); !errors.Is(err, api.SettingNotFound) {
			t.Errorf("Settings(%q) = %v, want %v", name, err, api.SettingNotFound)
		}
		if _, err := f.set(name, "1"); !errors.Is(err, api.SettingNotFound) {
			t.Errorf("Set(%q) = %v, want %v", name, err, api.SettingNotFound)
		}
	}
}

func TestValuesOfSettings(t *testing.T) {
	for _, c := range []struct {
		name, value, want string
		code              api.Code
	}{
		{"vs.sloppy_tcp", "1", "1", ""},
		{"vs.sloppy_tcp", "-3", "1", ""},
		{"vs.pmtu_disc", " 0\n", "0", ""},
		{"vs.pmtu_disc", "on", "", api.Invalid},
		{"vs.pmtu_disc", "", "", api.Invalid},
		{"vs.conn_reuse_mode", "3", "3", ""},
		{"vs.conn_reuse_mode", "-1", "", api.OutOfRange},
		{"vs.drop_entry", "3", "3", ""},
		{"vs.drop_entry", "4", "", api.OutOfRange},
		{"vs.secure_tcp", "-1", "", api.OutOfRange},
		{"vs.drop_packet", "2", "1", ""}, // memory isn't short
		{"vs.amemthresh", "0", "0", ""},
		{"vs.amemthresh", "99999999999999999999", "", api.Invalid},
		{"vs.lblc_expiration", "60", "60", ""},
		{"vs.lblcr_expiration", "0", "", api.OutOfRange},
		{"vs.sync_threshold", "3 100", "3 100", ""},
		{"vs.sync_threshold", "3\t100", "3 100", ""},
		{"vs.sync_threshold", "0 0", "0 0", ""},
		{"vs.sync_threshold", "7 0", "7 0", ""},
		{"vs.sync_threshold", "7 7", "", api.Invalid},
		{"vs.sync_threshold", "7", "", api.Invalid},
		{"vs.sync_threshold", "-1 7", "", api.OutOfRange},
		{"vs.sync_threshold", "1 x", "", api.Invalid},
		{"vs.sync_ports", "64", "64", ""},
		{"vs.sync_ports", "3", "", api.Invalid},
		{"vs.sync_ports", "128", "", api.OutOfRange},
		{"vs.sync_version", "2", "", api.OutOfRange},
		{"vs.sync_refresh_period", "30", "30", ""},
		{"vs.sync_retries", "4", "", api.OutOfRange},
		{"uvs.keep_template_timeout", "1", "1", ""},
	} {
		f := newFixture(t)
		got, err := f.set(c.name, c.value)
		if c.code != "" {
			if !errors.Is(err, c.code) {
				t.Errorf("%s=%q: %v, want %v", c.name, c.value, err, c.code)
			}
			continue
		}
		if err != nil || got[0].Value != c.want {
			t.Errorf("%s=%q: %+v, %v, want %q", c.name, c.value, got, err, c.want)
		}
	}
}

func TestSettingsAreSetTogetherOrNotAtAll(t *testing.T) {
	f := newFixture(t)
	before := f.Table()
	if _, err := f.set("vs.sloppy_tcp", "1", "vs.drop_entry", "9"); !errors.Is(err, api.OutOfRange) {
		t.Errorf("Set = %v, want %v", err, api.OutOfRange)
	}
	if f.Table() != before || f.settings != service.DefaultSettings() {
		t.Error("a refused setting left something behind")
	}
	if _, err := f.set("vs.sloppy_tcp", "0"); err != nil || f.Table() != before {
		t.Errorf("%v; what changes nothing was published", err)
	}
}

func TestSettingsReachEverybody(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s lblc", "-a "+web+" -r 10.1.0.11:80")
	vs := f.vs(web)
	if want := (conntrack.Settings{ConnReuseMode: 1}); f.conns.settings != want {
		t.Errorf("the connection table begins with %+v, want %+v", f.conns.settings, want)
	}
	_, err := f.set("vs.sloppy_tcp", "1", "vs.conn_reuse_mode", "0", "vs.expire_nodest_conn", "1", "vs.expire_quiescent_template", "1",
		"vs.secure_tcp", "3", "vs.lblc_expiration", "60", "uvs.keep_template_timeout", "1")
	if err != nil {
		t.Fatal(err)
	}
	if s := f.Table().Settings; !s.SloppyTCP || s.ConnReuseMode != 0 || s.LBLCExpiration != time.Minute || !s.PMTUDisc {
		t.Errorf("the packet path has %+v", s)
	}
	want := conntrack.Settings{ExpireNodestConn: true, ExpireQuiescentTemplate: true, SecureTCP: true, KeepTemplateTimeout: true}
	if f.conns.settings != want {
		t.Errorf("the connection table has %+v, want %+v", f.conns.settings, want)
	}
	if f.vs(web) != vs {
		t.Error("a setting made a service anew")
	}
	f.must("-A "+dns+" -s lblcr", "-a "+dns+" -r 10.1.0.11:53")
	if s := f.Table().Settings; !s.SloppyTCP {
		t.Error("a change of services lost the settings")
	}
	if got := f.Table().Settings; got != f.settings {
		t.Errorf("published %+v, want %+v", got, f.settings)
	}
}

// TestDefencesFollowMemoryAsTheKernelsDo has one row for each case of update_defense_level.
func TestDefencesFollowMemoryAsTheKernelsDo(t *testing.T) {
	const off, auto, active, always = service.DefenceOff, service.DefenceAuto, service.DefenceActive, service.DefenceAlways
	for _, c := range []struct {
		situation string
		mode      service.DefenceMode
		available int
		after     service.DefenceMode
		inForce   bool
		rate      int // of drop_packet
		restart   bool
	}{
		{"off, memory", off, 1024, off, false, 0, false},
		{"off, no memory", off, 0, off, false, 0, false},
		{"auto, memory", auto, 1024, auto, false, 0, false},
		{"auto, a page short", auto, 1023, active, true, 1024, true},
		{"auto, half of it", auto, 512, active, true, 2, true},
		{"auto, a third", auto, 341, active, true, 1, true},
		{"auto, no memory", auto, 0, active, true, 1, true},
		{"active, still short", active, 768, active, true, 4, true},
		{"active, memory again", active, 2000, auto, false, 0, false},
		{"always, memory", always, math.MaxInt, always, true, 10, false},
		{"always, no memory", always, 0, always, true, 10, false},
	} {
		s := service.DefaultSettings()
		s.DropEntry, s.DropPacket, s.SecureTCP = c.mode, c.mode, c.mode
		d := update(&s, c.available)
		want := defence{dropEntry: c.inForce, dropRate: c.rate, restart: c.restart, secureTCP: c.inForce}
		if d != want || s.DropEntry != c.after || s.DropPacket != c.after || s.SecureTCP != c.after {
			t.Errorf("%s: %+v, modes %d %d %d; want %+v, %d", c.situation, d, s.DropEntry, s.DropPacket, s.SecureTCP, want, c.after)
		}
	}
}

func TestDefencesComeAndGoWithMemory(t *testing.T) {
	pages := 5000
	f := newFixture(t, func(c *Config) { c.AvailablePages = func() int { return pages } })
	if _, err := f.set("vs.drop_entry", "1", "vs.drop_packet", "1", "vs.secure_tcp", "1"); err != nil {
		t.Fatal(err)
	}
	check := func(situation string, rate, dropped int, secure bool, mode string) {
		t.Helper()
		list, err := f.Settings(t.Context(), []string{"vs.drop_entry", "vs.drop_packet", "vs.secure_tcp"})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.Value != mode {
				t.Errorf("%s: %s = %s, want %s", situation, s.Name, s.Value, mode)
			}
		}
		if got := f.Table().Limiter.Rate(); got != rate || f.conns.dropped != dropped || f.conns.settings.SecureTCP != secure {
			t.Errorf("%s: drop rate %d, %d times entries dropped, secure TCP %v; want %d %d %v",
				situation, got, f.conns.dropped, f.conns.settings.SecureTCP, rate, dropped, secure)
		}
	}
	f.Defend()
	check("memory", 0, 0, false, "1")
	pages = 512
	f.Defend()
	check("short", 2, 1, true, "2")
	f.Defend()
	check("still short", 2, 2, true, "2")
	pages = 1024
	f.Defend()
	check("memory again", 0, 2, false, "1")
	pages = 10
	if _, err := f.set("vs.drop_entry", "0", "vs.drop_packet", "0", "vs.secure_tcp", "0"); err != nil {
		t.Fatal(err)
	}
	f.Defend()
	check("off", 0, 2, false, "0")
}
