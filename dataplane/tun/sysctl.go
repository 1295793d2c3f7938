package tun

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Sysctls changes settings of the host for as long as a program runs. It holds the settings' files open, so that it puts
// back what it changed in the network namespace it changed it in, whatever thread asks for it. The zero value is ready.
type Sysctls struct {
	changed []change
}

// change is a setting that was changed.
type change struct {
	file     *os.File
	name     string
	was, now string
}

// sysctlRoot is where the kernel shows its settings; those under net are of the reader's network namespace.
const sysctlRoot = "/proc/sys/"

// Raise makes the number that the setting name ("net/ipv4/conf/all/arp_ignore") has at least least, and says whether it
// had to. An error names the setting and the command that would do it.
func (s *Sysctls) Raise(name string, least int) (changed bool, err error) {
	remedy := func(err error) error {
		return fmt.Errorf("%w; by hand: sysctl -w %s=%d", err, strings.ReplaceAll(name, "/", "."), least)
	}
	was, err := readSysctl(name)
	if err != nil {
		return false, remedy(err)
	}
	value, err := strconv.Atoi(was)
	if err != nil {
		return false, fmt.Errorf("sysctl %s is no number: %q", name, was)
	}
	if value >= least {
		return false, nil
	}
	file, err := os.OpenFile(sysctlRoot+name, os.O_RDWR, 0)
	if err != nil {
		return false, remedy(err)
	}
	c := change{file: file, name: name, was: was, now: strconv.Itoa(least)}
	if err := c.write(c.now); err != nil {
		return false, errors.Join(remedy(err), file.Close())
	}
	s.changed = append(s.changed, c)
	return true, nil
}

// Restore puts back what Raise changed. A setting that somebody else has changed since then stays.
func (s *Sysctls) Restore() error {
	var errs []error
	for _, c := range s.changed {
		if now, err := c.read(); err != nil || now == c.now {
			errs = append(errs, err, c.write(c.was))
		}
		errs = append(errs, c.file.Close())
	}
	s.changed = nil
	return errors.Join(errs...)
}

func (c *change) read() (string, error) {
	var b [64]byte
	n, err := c.file.ReadAt(b[:], 0)
	if n == 0 {
		return "", err // with n > 0 it says only that this is all
	}
	return strings.TrimSpace(string(b[:n])), nil
}

func (c *change) write(value string) error {
	_, err := c.file.WriteAt([]byte(value), 0)
	return err
}

// writeSysctl sets a setting of the calling thread's network namespace.
func writeSysctl(name, value string) error {
	return os.WriteFile(sysctlRoot+name, []byte(value), 0)
}

// readSysctl reads a setting of the calling thread's network namespace, without its final newline.
func readSysctl(name string) (string, error) {
	b, err := os.ReadFile(sysctlRoot + name)
	return strings.TrimSpace(string(b)), err
}
