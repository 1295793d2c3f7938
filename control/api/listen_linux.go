package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Group is the group whose members may use the socket, where it exists.
const Group = "uvs"

// maxSocketName is the longest name, sockaddr_un's less the zero byte (unix(7)).
const maxSocketName = 107

// Listen opens the Unix socket with that path, making its directory if need be. Members of group may use it where such
// a group exists and the process may give the socket to it (mode 0660), else its owner alone (0600). A socket that a
// crash left behind is replaced; one that somebody answers is not, nor is anything that isn't a socket. Closing the
// listener removes the socket.
func Listen(path, group string) (net.Listener, error) {
	// Bound under another name and renamed, the socket is never seen with the wrong owner.
	dir := filepath.Dir(path)
	made := filepath.Join(dir, "."+strconv.Itoa(os.Getpid()))
	if n := max(len(path), len(made)); n > maxSocketName {
		return nil, fmt.Errorf("listen on %s: the name is too long for a socket by %d bytes", path, n-maxSocketName)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Two that start at once would both find a dead socket and the second would take the first's away. The lock on the
	// directory is held only until the socket can be asked.
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("listen on %s: lock %s: %w", path, dir, err)
	}
	if err := free(path); err != nil {
		return nil, err
	}
	os.Remove(made) // a crash at the same process id's
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, cause(err))
	}
	l.SetUnlinkOnClose(false)
	s, err := place(made, path, group)
	if err != nil {
		l.Close()
		os.Remove(made)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &listener{UnixListener: l, path: path, socket: s}, nil
}

// free makes path available, or says who has it.
func free(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("listen on %s: there is something that is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("another uvsd is listening on %s", path)
	case errors.Is(err, syscall.ECONNREFUSED): // nobody holds it any more
		return os.Remove(path)
	case errors.Is(err, syscall.EAGAIN): // somebody does, and is too busy to answer
		return fmt.Errorf("another uvsd is listening on %s", path)
	default:
		return fmt.Errorf("listen on %s: ask who has it: %w", path, cause(err))
	}
}

// place gives the socket its owner, mode and name.
func place(made, path, group string) (os.FileInfo, error) {
	mode := os.FileMode(0o600)
	if g, err := user.LookupGroup(group); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil && os.Chown(made, -1, gid) == nil {
			mode = 0o660
		}
	}
	if err := os.Chmod(made, mode); err != nil {
		return nil, err
	}
	if err := os.Rename(made, path); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// cause strips the names that net puts around a system call's error.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

// listener removes its socket when closed, unless another has taken the name.
type listener struct {
	*net.UnixListener
	path   string
	socket os.FileInfo
}

// Close implements net.Listener.
func (l *listener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.socket) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// Addr implements net.Listener with the name the socket has now.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }
