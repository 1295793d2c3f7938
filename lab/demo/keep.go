package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"uvs/lab"
)

// keptDir is where the sockets and logs of demos lie that were left up, each in a directory called like its process.
const keptDir = "/run/uvs-demo"

// ownerFile names, in such a directory, the program that left the demo up.
const ownerFile = "program"

// workDir makes the directory for a run's sockets and logs. self is this program's path.
func workDir(kept bool, self string) (string, error) {
	if !kept {
		return os.MkdirTemp("", "uvs-demo-")
	}
	dir := filepath.Join(keptDir, strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, ownerFile), []byte(self), 0o644)
}

// removeKept takes down what --keep of this same program left up: what another checkout's or another test's did is theirs.
func removeKept() error {
	if os.Geteuid() != 0 {
		return nil // without root nothing outlives the demo's process
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dirs, err := os.ReadDir(keptDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, d := range dirs {
		dir := filepath.Join(keptDir, d.Name())
		owner, err := os.ReadFile(filepath.Join(dir, ownerFile))
		pid, notPID := strconv.Atoi(d.Name())
		if err != nil || notPID != nil || string(owner) != self {
			continue
		}
		errs = append(errs, lab.RemoveKept(pid), os.RemoveAll(dir))
	}
	_ = os.Remove(keptDir) // if that was the last
	return errors.Join(errs...)
}

// leaveUp prints the commands to play with. Without root everything lives in namespaces of this process: then it stays
// until it is stopped.
func (d *demo) leaveUp(ctx context.Context) error {
	heading("Left up")
	for _, s := range d.stages {
		enter := func(h *lab.Host) string {
			if d.rootless {
				return h.EnterCommand()
			}
			return "ip netns exec " + filepath.Base(h.Path())
		}
		client, rs, director := enter(s.topo.Clients[clients-1]), enter(s.host(1)), enter(s.topo.Directors[0])
		adm := filepath.Join(d.bin, "uvsadm") + " --socket " + s.socket
		f := s.families[0]
		web := "http://" + f.at(webPort)
		fmt.Printf("\n  %s, VIP %v\n", s.method.name, f.vip)
		var commands [][2]string
		for _, f := range s.families {
			commands = append(commands, [2]string{client + " curl -s 'http://" + f.at(webPort) + "/'", "which real server answers, by " + f.name})
		}
		for _, c := range append(commands, [][2]string{
			{client + " curl -o /dev/null '" + web + "/bytes?n=1000000000'", "a gigabyte"},
			{adm + " -L -n --stats", "the table"},
			{adm + " -L -n -c", "the connections"},
			{adm + " -e -t " + f.at(webPort) + " -r " + s.rip(f, 1, s.method.web) + " " + s.method.flag + " -w 9", "another weight"},
			{adm + " status", "interfaces, packets by verdict"},
			{director + " tcpdump -ni eth0", "what the director sees"},
			{rs + " ip address", "a real server's addresses"},
			{"tail -f " + s.log, "the director's log"},
		}...) {
			fmt.Printf("    # %s\n    %s\n", c[1], c[0])
		}
	}
	if !d.rootless {
		fmt.Printf("\n  make clean (or %s --remove) takes it down.\n", filepath.Join(d.bin, "uvsdemo"))
		return nil
	}
	fmt.Print("\n  Use another terminal for these; Ctrl-C here takes everything down.\n")
	<-ctx.Done()
	fmt.Println()
	return nil
}
