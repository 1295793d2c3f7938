package api

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestAClientWithoutServerSaysWhereItLooked(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone.sock")
	if _, err := NewClient(gone).Status(t.Context()); err == nil ||
		err.Error() != "cannot reach uvsd at "+gone+": no such file or directory (is uvsd running? --socket names another)" {
		t.Errorf("Status = %v", err)
	}
	stale := staleSocket(t, dir)
	_, err := NewClient(stale).Change(t.Context(), &ChangeRequest{})
	if err == nil || err.Error() != "cannot reach uvsd at "+stale+": connection refused (is uvsd running? --socket names another)" {
		t.Errorf("Change = %v", err)
	}
	if e := (*UnreachableError)(nil); !errors.As(err, &e) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v is not an UnreachableError of its cause", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewClient(stale).Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Status = %v with a context that has ended, want its error", err)
	}
}

// staleSocket makes what a killed server leaves behind.
func staleSocket(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	return path
}

func TestListenTakesTheNameThatACrashLeft(t *testing.T) {
	path := staleSocket(t, t.TempDir())
	l, err := Listen(path, "")
	if err != nil {
		t.Fatalf("Listen = %v over a dead socket, want it replaced", err)
	}
	if l.Addr().String() != path {
		t.Errorf("listening on %v, want %s", l.Addr(), path)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind after Close: %v", left)
	}
}

func TestListenLeavesALiveSocketAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "uvsd.sock")
	l, err := Listen(path, "")
	if err != nil {
		t.Fatalf("Listen = %v, want the directory to be made", err)
	}
	defer l.Close()
	if _, err := Listen(path, ""); err == nil || err.Error() != "another uvsd is listening on "+path {
		t.Errorf("a second Listen = %v", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first one cannot be reached any more: %v", err)
	} else {
		conn.Close()
	}
}

func TestListenLeavesOtherThingsAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(path, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, ""); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("Listen = %v over a file, want that it is not a socket", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "keep" {
		t.Error("the file was touched")
	}
	if _, err := Listen(filepath.Join(t.TempDir(), strings.Repeat("x", 120)), ""); err == nil {
		t.Error("a name too long for a socket was accepted")
	}
}

func TestCloseLeavesASuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path) // by hand
	second, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the first took the second's socket with it: %v", err)
	}
}

func TestOnlyOneOfManyListens(t *testing.T) {
	path := staleSocket(t, t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var held []net.Listener
	for range 16 {
		wg.Go(func() {
			if l, err := Listen(path, ""); err == nil {
				mu.Lock()
				held = append(held, l)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, l := range held {
		l.Close()
	}
	if len(held) != 1 {
		t.Errorf("%d of 16 listen on one name, want 1", len(held))
	}
}

func TestTheSocketIsItsOwnersOrItsGroups(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct {
		group string
		mode  os.FileMode
	}{
		{"no-such-group-here", 0o600},
		{"", 0o600},
		{"root", 0o660}, // a group that exists everywhere stands for uvs
	} {
		if row.group == "root" && os.Getuid() != 0 {
			row.mode = 0o600
		}
		path := filepath.Join(dir, "s")
		l, err := Listen(path, row.group)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		l.Close()
		if err != nil || info.Mode().Perm() != row.mode {
			t.Errorf("group %q: mode %v, %v; want %v", row.group, info.Mode().Perm(), err, row.mode)
		}
	}
}
