package progress

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBarComesAfterTwoSecondsAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		b := &Bar{out: &out, width: func() int { return 80 }, what: "sim", begun: time.Now()}
		time.Sleep(time.Second)
		b.Set(1, 4, "")
		if out.Len() > 0 {
			t.Errorf("after a second: %q", out.String())
		}
		time.Sleep(2 * time.Second)
		b.Set(3, 4, "rr")
		b.Set(4, 4, "too early to draw again")
		if want := "\rsim [##################......]  75 %, 1s left, rr\x1b[K"; out.String() != want {
			t.Errorf("drew %q, want %q", out.String(), want)
		}
		b.Done()
		if !strings.HasSuffix(out.String(), "\r\x1b[K") {
			t.Errorf("the bar is still there: %q", out.String())
		}
	})
}

func TestBarStandsWhileSomethingSilentRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		b := &Bar{out: &out, width: func() int { return 80 }, what: "wire", begun: time.Now()}
		err := b.While(1, 2, "uvs-nat", func() error {
			time.Sleep(3*time.Second + time.Millisecond)
			b.mu.Lock()
			drawn := out.String()
			b.mu.Unlock()
			if !strings.Contains(drawn, "50 %, 3s left, uvs-nat") {
				t.Errorf("drew %q", drawn)
			}
			if _, err := b.Over(&out).Write([]byte("a line\n")); err != nil {
				t.Error(err)
			}
			return os.ErrClosed
		})
		if err != os.ErrClosed || !strings.HasSuffix(out.String(), "\r\x1b[Ka line\n") {
			t.Errorf("%v, %q", err, out.String())
		}
	})
	var none *Bar
	if err := none.While(0, 1, "", func() error { return os.ErrExist }); err != os.ErrExist || none.Over(os.Stdout) != os.Stdout {
		t.Errorf("without a bar: %v", err)
	}
}

func TestNarrowTerminalIsNotOverrun(t *testing.T) {
	if s := line("a long title", "and a note", 0.5, time.Minute, 20); len([]rune(s)) != 19 {
		t.Errorf("%q on 20 columns", s)
	}
}

func TestNoBarWithoutTerminal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := New(f, "sim")
	b.Set(1, 2, "") // of nobody
	b.Done()
	if b != nil {
		t.Error("a file has a bar")
	}
}
