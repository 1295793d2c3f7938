package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The clocks of single processes and threads (clock_getcpuclockid(3)): a complemented number, shifted, and what it counts.
const (
	clockScheduled = 2 // nanoseconds on a CPU, threads that have ended included
	clockThread    = 4
)

// cpuOf is the CPU time that a process has used so far. What interrupts the kernel handled meanwhile is part of it: that is
// how a veth bills the receiver's work to the sender.
func cpuOf(pid int) (time.Duration, error) { return readClock(int32(^pid<<3 | clockScheduled)) }

// cpuOfThread is that of one thread of our own.
func cpuOfThread(tid int) (time.Duration, error) {
	return readClock(int32(^tid<<3 | clockThread | clockScheduled))
}

func readClock(clock int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("read CPU clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// cpuOfAll is the CPU time of several processes. One that has ended is an error: its figures would be wrong.
func cpuOfAll(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		d, e := cpuOf(pid)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("process %d: %w", pid, e))
		}
		sum += d
	}
	return sum, err
}

// family are a process and its descendants.
func family(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if id, parent, _, ok := parseStat(string(b)); ok {
			children[parent] = append(children[parent], id)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// parseStat reads the beginning of /proc/PID/stat: number, name in parentheses, which may hold anything, state, parent.
func parseStat(s string) (pid, parent int, name string, ok bool) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 1 || end < open {
		return 0, 0, "", false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(s[:open]))
	fields := strings.Fields(s[end+1:])
	if err != nil || len(fields) < 2 {
		return 0, 0, "", false
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, s[open+1 : end], err == nil
}

// softirqThreads are the kernel's threads that do what interrupts left over, when it is too much to be done at once.
func softirqThreads() ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if pid, _, name, ok := parseStat(string(b)); ok && strings.HasPrefix(name, "ksoftirqd/") {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// pin binds every thread of a process to a CPU; further ones inherit it.
func pin(pid, cpu int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("bind process %d to CPU %d: %w", pid, cpu, err)
			}
		}
	}
	return nil
}
