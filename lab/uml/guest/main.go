// Command guest is the init process of a machine of package uml: it loads the modules that $UVS_MODULES names, with commas
// between them, and then does what the other end of a terminal asks, one JSON object a line. Its root is the host's, read only.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	terminal = "/dev/tty1"
	patience = 30 * time.Second // with a file that is to have a text
)

// request is what uml.Request says.
type request struct {
	Argv  []string `json:"argv"`
	Stdin string   `json:"stdin"`
	Read  string   `json:"read"`
	Word  string   `json:"word"`
	Await string   `json:"await"`
}

// reply is what uml.Reply says.
type reply struct {
	Status int    `json:"status"`
	Out    string `json:"out"`
	Err    string `json:"err"`
}

func main() {
	fmt.Fprintln(os.Stderr, "guest:", serve()) // the console is in a file beside the wires
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
}

// serve returns what ended it.
func serve() error {
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	if err := os.Setenv("LC_ALL", "C"); err != nil {
		return err
	}
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/run"}, {"tmpfs", "/mnt"}, {"devtmpfs", "/dev"}} {
		if err := syscall.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := os.Mkdir("/mnt/lib", 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/usr/lib/uml/modules", "/mnt/lib/modules"); err != nil {
		return err
	}
	ready := run(&request{Argv: append([]string{"modprobe", "-d", "/mnt", "-a"}, strings.Split(os.Getenv("UVS_MODULES"), ",")...)})
	tty, err := os.OpenFile(terminal, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	if r := run(&request{Argv: []string{"stty", "-F", terminal, "raw", "-echo"}}); r.Status != 0 {
		return errors.New(r.Err)
	}
	out := json.NewEncoder(tty)
	if err := out.Encode(ready); err != nil {
		return err
	}
	for in := bufio.NewReader(tty); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return err
		}
		var q request
		r := reply{Status: -1}
		if err := json.Unmarshal(line, &q); err != nil {
			r.Err = err.Error()
		} else {
			r = run(&q)
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

func run(q *request) reply {
	if q.Read != "" {
		b, err := os.ReadFile(q.Read)
		for end := time.Now().Add(patience); q.Await != "" && !bytes.Contains(b, []byte(q.Await)) && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
			b, err = os.ReadFile(q.Read)
		}
		if err != nil {
			return reply{Status: -1, Err: err.Error()}
		}
		var out strings.Builder
		for line := range strings.Lines(string(b)) {
			if out.Len() == 0 || strings.Contains(line, q.Word) {
				out.WriteString(line)
			}
		}
		return reply{Out: out.String()}
	}
	if len(q.Argv) == 0 {
		return reply{Status: -1, Err: "nothing asked"}
	}
	var out, errs bytes.Buffer
	c := exec.Command(q.Argv[0], q.Argv[1:]...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(q.Stdin), &out, &errs
	err := c.Run()
	r := reply{Out: out.String(), Err: errs.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Status = exit.ExitCode()
	case err != nil:
		r.Status, r.Err = -1, err.Error()
	}
	return r
}
