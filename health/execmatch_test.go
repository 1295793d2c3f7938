package health

import (
	"context"
	"testing"
	"time"
)

// A program may say in words whether the server serves, as Piranha's did.
func TestWhatAProgramPrintsCanDecide(t *testing.T) {
	for _, c := range []struct {
		command, match string
		good           bool
	}{
		{"/bin/echo OK", "^OK", true},
		{"/bin/echo FAIL", "^OK", false},
		{"/bin/echo FAIL", "", true},
		{"/bin/sh -c 'echo OK; exit 3'", "OK", false},
	} {
		e := &Exec{Command: c.command, Match: c.match}
		if err := e.Prepare(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		said, err := e.Probe(ctx, &Target{})
		cancel()
		if (err == nil) != c.good {
			t.Errorf("%s, %q: %q, %v", c.command, c.match, said, err)
		}
	}
	if err := (&Exec{Command: "/bin/true", Match: "("}).Prepare(); err == nil {
		t.Error("a pattern that is none was taken")
	}
}
