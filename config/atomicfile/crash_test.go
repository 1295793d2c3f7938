package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The test runs itself as the writer that is killed. Its main goroutine stays on the thread that is traced.
const victimEnv = "UVS_ATOMICFILE_VICTIM"

func init() {
	if os.Getenv(victimEnv) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	if name := os.Getenv(victimEnv); name != "" {
		mark := func() { _ = syscall.Tgkill(syscall.Getpid(), syscall.Gettid(), syscall.SIGUSR1) }
		syscall.Umask(0o077)
		mark()
		err := Write(name, content("new"), 0o640)
		mark()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// content is what a file has: long enough that half of it would be seen.
func content(word string) []byte { return bytes.Repeat([]byte(word+" content\n"), 20_000) }

// write runs the writer under ptrace and kills it at the stop of that number, counted from the beginning of Write; 0 lets it
// finish. It returns the system calls that Write began.
func write(t *testing.T, name string, killAt int) (calls []int64, stops int) {
	t.Helper()
	runtime.LockOSThread() // ptrace is a thread's
	defer runtime.UnlockOSThread()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+name)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	var status syscall.WaitStatus
	wait := func() {
		for {
			_, err := syscall.Wait4(pid, &status, 0, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	wait()
	const syscallStop = syscall.SIGTRAP | 0x80
	if err := syscall.PtraceSetOptions(pid, syscall.PTRACE_O_TRACESYSGOOD); err != nil {
		t.Fatal(err)
	}
	marks, entry, deliver := 0, true, 0
	for {
		if err := syscall.PtraceSyscall(pid, deliver); err != nil {
			t.Fatal(err)
		}
		wait()
		deliver = 0
		switch {
		case status.Exited():
			if status.ExitStatus() != 0 {
				t.Fatalf("the writer ends with %d", status.ExitStatus())
			}
			return calls, stops
		case status.Signaled():
			t.Fatalf("the writer ends by %v", status.Signal())
		case status.StopSignal() == syscallStop:
			if marks == 1 {
				if stops++; entry {
					calls = append(calls, callOf(t, pid))
				}
				if stops == killAt {
					_ = cmd.Process.Kill()
					wait()
					return calls, stops
				}
			}
			entry = !entry
		case status.StopSignal() == syscall.SIGUSR1:
			marks++
			entry = true
			if marks == 1 {
				entry = false // the stop that ends the call which sent it comes first
			}
		default:
			deliver = int(status.StopSignal())
		}
	}
}

// callOf is the number of the system call that a stopped process is about to make.
func callOf(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
	if err != nil {
		t.Fatal(err)
	}
	word, _, _ := strings.Cut(string(text), " ")
	n, _ := strconv.ParseInt(word, 10, 64)
	return n
}

func TestKilledAtEverySystemCallItLeavesTheOldOrTheNewFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "uvs.yaml")
	reset := func() {
		if err := os.WriteFile(name, content("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reset()
	_, stops := write(t, name, 0)
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, content("new")) {
		t.Fatalf("the writer wrote %d bytes, %v", len(got), err)
	}
	if stops < 10 {
		t.Fatalf("only %d stops were seen", stops)
	}
	old, fresh := 0, 0
	for at := 1; at <= stops; at++ {
		reset()
		write(t, name, at)
		switch got, err := os.ReadFile(name); {
		case err != nil:
			t.Fatalf("killed at stop %d of %d: %v", at, stops, err)
		case bytes.Equal(got, content("old")):
			old++
		case bytes.Equal(got, content("new")):
			fresh++
		default:
			t.Fatalf("killed at stop %d of %d: a third file, of %d bytes", at, stops, len(got))
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("killed at stop %d: mode %v, %v", at, info.Mode(), err)
		}
		if err := Write(name, content("again"), 0o640); err != nil {
			t.Fatalf("after it was killed at stop %d: %v", at, err)
		}
	}
	if old == 0 || fresh == 0 {
		t.Errorf("the old file %d times, the new one %d times: it was not killed everywhere", old, fresh)
	}
	if list, err := os.ReadDir(filepath.Dir(name)); err != nil || len(list) != 1 {
		t.Errorf("it leaves %v, %v", list, err)
	}
	t.Logf("killed at %d stops: the old file %d times, the new one %d times", stops, old, fresh)
}

// What the disk has after a loss of power follows from the order of the calls: the content before the name, the name before the end.
func TestTheContentReachesTheDiskBeforeTheName(t *testing.T) {
	name := filepath.Join(t.TempDir(), "runtime.json")
	calls, _ := write(t, name, 0)
	index := func(from int, numbers ...int64) int {
		for i := from; i < len(calls); i++ {
			if slices.Contains(numbers, calls[i]) {
				return i
			}
		}
		return -1
	}
	last := -1
	for i := index(0, syscall.SYS_WRITE); i >= 0; i = index(i+1, syscall.SYS_WRITE) {
		last = i
	}
	sync := index(last+1, syscall.SYS_FSYNC)
	rename := index(0, syscall.SYS_RENAMEAT)
	if last < 0 || sync < 0 || rename < sync || index(rename+1, syscall.SYS_FSYNC) < 0 {
		t.Errorf("system calls %v: want write, fsync (%d), renameat (%d), fsync", calls, syscall.SYS_FSYNC, syscall.SYS_RENAMEAT)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("a new file has the mode %v, %v", info, err)
	}
}

func TestALinkStaysALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(real, content("old"), 0o600), os.Symlink("real", link), Write(link, content("new"), 0o640)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(real)
	if info, _ := os.Lstat(link); err != nil || !bytes.Equal(got, content("new")) || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, what it leads to has %d bytes, %v", info.Mode(), len(got), err)
	}
	if err := errors.Join(os.WriteFile(real+suffix, nil, 0o600), Clean(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(real + suffix); err == nil {
		t.Error("Clean leaves what a writer left")
	}
}
