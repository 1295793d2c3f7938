package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"uvs/lab"
)

// tunDevice is what uvsdecap takes its TUN devices from.
const tunDevice = "/dev/net/tun"

// noTUN says in some lines why uvsdecap cannot run here; empty if it can.
func noTUN(rootless bool) string {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return ""
	}
	why := fmt.Sprintf("on the real servers uvsdecap needs a TUN device, and\n%v.", err)
	switch {
	case errors.Is(err, fs.ErrPermission) && rootless:
		return why + "\nOn this machine only root may open that: sudo make demo shows TUN, too." +
			"\nMost distributions let everybody (mode 0666), and then make demo shows it without root."
	case errors.Is(err, fs.ErrNotExist):
		return why + "\nmodprobe tun loads the kernel's module."
	}
	return why
}

// startDecap starts uvsdecap on a real server, unless it runs there, and waits until it decapsulates.
func (s *stage) startDecap(ctx context.Context, h *lab.Host) error {
	if s.decaps[h.Name()] != nil {
		return nil
	}
	log, err := os.Create(filepath.Join(filepath.Dir(s.log), h.Name()+"-uvsdecap.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c := h.Command(context.Background(), filepath.Join(s.demo.bin, "uvsdecap"), s.decapArgs()...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: !s.demo.keep || s.demo.rootless}
	if err := c.Start(); err != nil {
		return err
	}
	s.decaps[h.Name()] = c
	for end := time.Now().Add(10 * time.Second); ; {
		text, err := os.ReadFile(log.Name())
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte(`"msg":"decapsulating"`)) {
			return nil
		}
		if c.Process.Signal(syscall.Signal(0)) != nil || time.Now().After(end) {
			return fmt.Errorf("uvsdecap on %s does not come up; it says in %s why", h.Name(), log.Name())
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// decapArgs are uvsdecap's arguments.
func (s *stage) decapArgs() []string {
	var directors, vips []string
	for _, f := range s.families {
		directors = append(directors, f.addr(s.topo.Directors[0]).String())
		vips = append(vips, f.vip.String())
	}
	return []string{"--director", strings.Join(directors, ","), "--vip", strings.Join(vips, ",")}
}
