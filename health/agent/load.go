package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"strconv"
	"strings"
)

// Load is how busy a host is. Each part is a share from 0, idle, and NaN where the host cannot tell.
type Load struct {
	// Run is the load average of the last minute for each CPU: processes that run or want to, or wait for disks. It may be
	// above 1.
	Run float64
	// CPU, Memory and IO are the shares, 0 to 1, of the last ten seconds in which some process was held up for want of it
	// (Documentation/accounting/psi.rst, "some avg10").
	CPU, Memory, IO float64
}

// ReadLoad reads the load from proc, a file system like /proc, of a host with so many CPUs. Pressure that the kernel doesn't
// tell of (CONFIG_PSI, psi=1) is NaN; without a load average there is nothing to go by, which is an error.
func ReadLoad(proc fs.FS, cpus int) (Load, error) {
	l := Load{CPU: readPressure(proc, "cpu"), Memory: readPressure(proc, "memory"), IO: readPressure(proc, "io")}
	text, err := fs.ReadFile(proc, "loadavg")
	if err != nil {
		return l, err
	}
	fields := strings.Fields(string(text))
	if len(fields) == 0 {
		return l, errors.New("loadavg is empty")
	}
	v, err := strconv.ParseFloat(fields[0], 64)
	if err != nil || !(v >= 0) || math.IsInf(v, 0) {
		return l, fmt.Errorf("loadavg begins with %q, which is no load", fields[0])
	}
	l.Run = v / float64(max(cpus, 1))
	return l, nil
}

// CPUs is how many CPUs this process may use, and so the host, or the container that has its own.
func CPUs() int { return runtime.NumCPU() }

// readPressure reads one file of /proc/pressure: of its line "some", the field "avg10", in percent.
func readPressure(proc fs.FS, what string) float64 {
	text, err := fs.ReadFile(proc, "pressure/"+what)
	if err != nil {
		return math.NaN() // not there, or EOPNOTSUPP
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "some" {
			continue
		}
		for _, f := range fields[1:] {
			if n, is := strings.CutPrefix(f, "avg10="); is {
				if v, err := strconv.ParseFloat(n, 64); err == nil && v >= 0 {
					return min(v/100, 1)
				}
			}
		}
	}
	return math.NaN()
}

// Importance says how much each part of a Load counts for a server's weight; 0 is not at all.
type Importance struct{ Run, CPU, Memory, IO float64 }

// DefaultImportance counts load average, CPU and memory alike, and disks not: most services wait for something else.
var DefaultImportance = Importance{Run: 1, CPU: 1, Memory: 1}

// Percent is the share of its weight that a host with this load can take, from 1 to 100.
//
// Each part says what a process that comes now would get: of the processors 1/(1+run), and of each kind of pressure the share
// of time without it. Their geometric mean, weighted by importance, is the result: two parts that say the same count once, and
// one that is exhausted is not made up for by the others. A part that the host cannot tell doesn't count. Never 0: that would
// drain a server whose only fault is to be busy, and who takes the load then?
func (m Importance) Percent(l Load) int {
	sum, log := 0.0, 0.0
	count := func(importance, free float64) {
		if importance > 0 && !math.IsNaN(free) {
			sum += importance
			log += importance * math.Log(max(free, 1e-4))
		}
	}
	count(m.Run, 1/(1+l.Run))
	count(m.CPU, 1-l.CPU)
	count(m.Memory, 1-l.Memory)
	count(m.IO, 1-l.IO)
	if sum == 0 {
		return 100
	}
	return min(max(int(math.Round(100*math.Exp(log/sum))), 1), 100)
}
