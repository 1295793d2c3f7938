package atomicfile

import (
	"os"
	"syscall"
)

// chown gives f the owner of old. Who isn't root owns what they write, and no other's file is replaced by theirs.
func chown(f *os.File, old os.FileInfo) error {
	s, ok := old.Sys().(*syscall.Stat_t)
	if !ok || int(s.Uid) == os.Geteuid() && int(s.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(s.Uid), int(s.Gid))
}
