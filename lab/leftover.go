package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Named namespaces outlive their process, so each named lab has a file in stateDir, called like the prefix of its
// namespaces. Its owner holds a lock on it (flock), which the kernel drops when the owner dies, however it dies; so a
// file that can be locked belongs to nobody. The file is made before the first namespace and removed after the last.
// A lab that was kept on purpose says so in the file.
const (
	stateDir = "/run/uvs-lab"
	keptMark = "kept\n"
)

// claimName removes leftovers and takes a free prefix for l's namespaces.
func (l *Lab) claimName() error {
	for _, r := range l.name {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9') {
			return fmt.Errorf("the name may have letters and digits only, not %q", r)
		}
	}
	return withStateDir(func() error {
		if err := removeLeftovers(noLab); err != nil {
			return err
		}
		for i := 1; ; i++ {
			id := labName(os.Getpid(), l.name)
			if i > 1 {
				id += strconv.Itoa(i) // another lab of this process, or a kept one of a former owner of our pid
			}
			f, err := os.OpenFile(filepath.Join(stateDir, id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, os.ErrExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
				f.Close()
				return fmt.Errorf("lock %s: %w", f.Name(), err)
			}
			l.id, l.state = id, f
			return nil
		}
	})
}

// releaseName gives the prefix back, or marks it as kept, after the namespaces are closed.
func (l *Lab) releaseName() error {
	defer l.state.Close()
	if l.keep {
		_, err := l.state.WriteString(keptMark)
		return err
	}
	return os.Remove(l.state.Name())
}

// RemoveKept removes the labs that were kept (Options.Keep) by a process that has ended since, and what crashed ones left.
// Processes inside them are killed.
func RemoveKept(pid int) error {
	return withStateDir(func() error { return removeLeftovers(labName(pid, "")) })
}

// labName is the prefix of the names of a lab's namespaces.
func labName(pid int, name string) string { return fmt.Sprintf("uvs-%d-%s", pid, name) }

// withStateDir runs f while no other process makes or removes files in stateDir.
func withStateDir(f func() error) error {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(stateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", stateDir, err)
	}
	return f()
}

// noLab is a prefix that no lab's name has.
const noLab = "-"

// removeLeftovers removes the named labs that have no living owner; of those that were kept, the ones whose names begin
// with kept.
func removeLeftovers(kept string) error {
	entries, err := os.ReadDir(stateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(stateDir, e.Name())
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		mark, err := io.ReadAll(f)
		owned := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
		if err == nil && !owned && (strings.HasPrefix(e.Name(), kept) || string(mark) != keptMark) {
			err = removeNamed(e.Name())
			if err == nil {
				err = os.Remove(path)
			}
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("remove leftover lab %s: %w", e.Name(), err)
		}
	}
	return nil
}

// removeNamed removes the namespaces whose names begin with id, and the processes inside. The links in them go with
// them.
func removeNamed(id string) error {
	entries, err := os.ReadDir(netnsDir)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	ids := map[nsID]bool{}
	var paths []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), id+"-") {
			continue
		}
		path := filepath.Join(netnsDir, e.Name())
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		ids[nsID{st.Dev, st.Ino}] = true // of a file that was never mounted over: matches no process
		paths = append(paths, path)
	}
	if err := killInside(ids); err != nil {
		return err
	}
	for _, path := range paths {
		if err := unbindNamespace(path); err != nil {
			return err
		}
	}
	return nil
}

// killInside kills every process whose network namespace is one of ids, and waits for a moment until they are gone.
func killInside(ids map[nsID]bool) error {
	if len(ids) == 0 {
		return nil
	}
	deadline := time.Now().Add(2 * time.Second)
	for {
		found, err := killInsideOnce(ids)
		if err != nil || len(found) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v in the lab's namespaces do not end", found)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// killInsideOnce kills the processes it finds, and returns their pids. Those that are dead already, and only wait for
// their parent, don't count: they have left their namespaces.
func killInsideOnce(ids map[nsID]bool) (found []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !inNamespaces(pid, ids) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // ended meanwhile
		}
		// The descriptor names one process for good, so a pid that was reused since the first look is found out.
		if inNamespaces(pid, ids) {
			found = append(found, pid)
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
		if err != nil && err != unix.ESRCH {
			return nil, fmt.Errorf("kill process %d in the lab's namespaces: %w", pid, err)
		}
	}
	return found, nil
}

// inNamespaces reports whether the process's network namespace is one of ids.
func inNamespaces(pid int, ids map[nsID]bool) bool {
	var st unix.Stat_t
	err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st)
	return err == nil && ids[nsID{st.Dev, st.Ino}]
}
