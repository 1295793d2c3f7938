package agent

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestReadLoad(t *testing.T) {
	proc := fstest.MapFS{
		"loadavg":         file("3.00 2.10 1.00 2/345 6789\n"),
		"pressure/cpu":    file("some avg10=20.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n"),
		"pressure/memory": file("full avg10=1.00 avg60=0.00 avg300=0.00 total=0\nsome avg10=5.00 avg60=0.00 avg300=0.00 total=0\n"),
		"pressure/io":     file("nonsense\nsome avg10=x\n"),
	}
	l, err := ReadLoad(proc, 4)
	if err != nil || l.Run != 0.75 || l.CPU != 0.2 || l.Memory != 0.05 || !math.IsNaN(l.IO) {
		t.Errorf("ReadLoad() = %+v, %v", l, err)
	}
	l, err = ReadLoad(fstest.MapFS{"loadavg": file("0.5 0 0 1/1 1\n")}, 1)
	if err != nil || l.Run != 0.5 || !math.IsNaN(l.CPU) || !math.IsNaN(l.Memory) {
		t.Errorf("ReadLoad() of a kernel without pressure = %+v, %v", l, err)
	}
	for _, text := range []string{"", "\n", "much\n", "NaN 0 0\n", "-1 0 0\n", "Inf 0 0\n"} {
		if l, err := ReadLoad(fstest.MapFS{"loadavg": file(text)}, 1); err == nil {
			t.Errorf("ReadLoad() of %q = %+v", text, l)
		}
	}
	if _, err := ReadLoad(fstest.MapFS{}, 1); err == nil {
		t.Error("ReadLoad() of nothing is no error")
	}
	if _, err := ReadLoad(os.DirFS("/proc"), CPUs()); err != nil {
		t.Errorf("ReadLoad() of this host: %v", err)
	}
}

func TestPercent(t *testing.T) {
	none := math.NaN()
	for _, c := range []struct {
		name string
		load Load
		want int
	}{
		{"idle", Load{}, 100},
		{"one process for each CPU", Load{Run: 1}, 79}, // the third root of a half
		{"the same, nothing else known", Load{1, none, none, none}, 50},
		{"three for each CPU, nothing else known", Load{3, none, none, none}, 25},
		{"memory exhausted", Load{Memory: 1}, 5},
		{"disks don't count", Load{IO: 1}, 100},
		{"everything exhausted", Load{1e6, 1, 1, 1}, 1},
	} {
		if got := DefaultImportance.Percent(c.load); got != c.want {
			t.Errorf("%s: %d %%, want %d", c.name, got, c.want)
		}
	}
	if got := (Importance{}).Percent(Load{Run: 5}); got != 100 {
		t.Errorf("nothing counts: %d %%, want 100", got)
	}
}

// More load is never a higher share, whatever counts how much; and it stays from 1 to 100.
func TestPercentFalls(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		m := Importance{random.Float64(), random.Float64() * 10, random.Float64(), random.Float64()}
		less := Load{random.ExpFloat64(), random.Float64(), random.Float64(), random.Float64()}
		more := Load{less.Run + random.ExpFloat64(), min(less.CPU+random.Float64(), 1), less.Memory, min(less.IO+random.Float64(), 1)}
		a, b := m.Percent(less), m.Percent(more)
		if b > a || b < 1 || a > 100 {
			t.Fatalf("%+v: %d %% at %+v, %d %% at %+v", m, a, less, b, more)
		}
	}
}

func TestSwitch(t *testing.T) {
	s := &Switch{File: filepath.Join(t.TempDir(), "drain")}
	state := func() Reply {
		r := said(50, StateNotSaid, AdminNotSaid)
		s.fill(&r)
		return r
	}
	want := func(what string, st State, a Admin, reason string) {
		t.Helper()
		r := said(50, st, a)
		r.Reason = reason
		if got := state(); got != r {
			t.Errorf("%s: %+v, want %+v", what, got, r)
		}
	}
	set := func(command string) {
		t.Helper()
		if err := s.Set(command); err != nil {
			t.Error(err)
		}
	}
	want("at first", Up, Ready, "")
	set("drain for the update\n")
	want("drained", Up, Drain, "for the update")
	set("down broken")
	want("down", Down, Drain, "broken")
	set("ready")
	want("ready again", Up, Ready, "")
	if err := os.WriteFile(s.File, []byte("by the file\x1b\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("with the file", Up, Drain, "by the file?")
	set("maint")
	want("maint is more than the file", Up, Maint, "by the file?")
	set("ready")
	want("the file stays", Up, Drain, "by the file?")
	os.Remove(s.File)
	want("without the file", Up, Ready, "")
	os.Mkdir(s.File, 0o700)
	want("a directory of that name", Up, Drain, "")
	for _, command := range []string{"", "75%", "reboot now"} {
		if s.Set(command) == nil {
			t.Errorf("command %q is taken", command)
		}
	}
}
