package agent

import (
	"strings"
	"testing"
)

func said(percent int, s State, a Admin) Reply {
	return Reply{Percent: percent, MaxConn: NotSaid, State: s, Admin: a}
}

func TestParse(t *testing.T) {
	maxconn := said(NotSaid, StateNotSaid, AdminNotSaid)
	maxconn.MaxConn = 30
	reason := said(NotSaid, Down, AdminNotSaid)
	reason.Reason = "disk full, really"
	for _, c := range []struct {
		line string
		want Reply
	}{
		{"75%\n", said(75, StateNotSaid, AdminNotSaid)},
		{"up ready 100%\r\n", said(100, Up, Ready)},
		{"UP,Drain\t0%", said(0, Up, Drain)},
		{"maxconn:30\n", maxconn},
		{"maint\n", said(NotSaid, StateNotSaid, Maint)},
		{"stopped\n", said(NotSaid, Down, AdminNotSaid)},
		{"fail\n", said(NotSaid, Down, AdminNotSaid)},
		{"down #disk full, really\nup 100%\n", reason},
		{"up down\n", said(NotSaid, Down, AdminNotSaid)}, // the last one holds
		{"up gently 50%\n", said(50, Up, AdminNotSaid)},
		{"99999%\n", said(MaxPercent, StateNotSaid, AdminNotSaid)},
	} {
		got, err := Parse([]byte(c.line))
		if err != nil || got != c.want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", c.line, got, err, c.want)
		}
	}
	for _, line := range []string{"", "\n", "hello\n", "-5%\n", "x%\n", "5 %\n", "up 5.5%\n", "maxconn:\n", "maxconn:-1\n", "#up\n",
		"HTTP/1.0 400 Bad request\r\n", "99999999999%", strings.Repeat(" ", MaxLine) + "up"} {
		if got, err := Parse([]byte(line)); err == nil || got != said(NotSaid, StateNotSaid, AdminNotSaid) {
			t.Errorf("Parse(%q) = %+v, %v, want an error and nothing said", line, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"up ready 75%\n", "maxconn:30 down#why\r\n", "drain,maint\tfail", "100%%", "\x00\xff#\x1b[31m"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Parse(line)
		if err != nil {
			return
		}
		if r.Percent < NotSaid || r.Percent > MaxPercent || r.MaxConn < NotSaid {
			t.Fatalf("Parse(%q) = %+v", line, r)
		}
		for _, c := range r.Reason {
			if c < ' ' {
				t.Fatalf("Parse(%q): a control character in %q", line, r.Reason)
			}
		}
		again, err := Parse([]byte(r.String()))
		if len(r.String()) <= MaxLine && (err != nil || again != r) {
			t.Fatalf("Parse(%q) = %+v, written %q, read again %+v, %v", line, r, r.String(), again, err)
		}
	})
}
