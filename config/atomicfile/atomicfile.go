// Package atomicfile writes files so that whoever reads one, whenever, finds the old content or the new, whole: also after the
// writer was killed or the machine lost its power.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// suffix is that of the new content until it has the file's name.
const suffix = ".uvs-new"

// Write gives the file of that name new content. Its mode and owner stay those that it had; a new file has the mode given. A
// symbolic link stays one: what it leads to is written. An error means that the old content is there, unless it says that the
// new is and only its lasting is in doubt.
//
// The new content is written beside the file and reaches the disk before the file's name leads to it (rename(2) is atomic), and
// the directory with the name reaches it before Write returns.
func Write(name string, data []byte, mode os.FileMode) (err error) {
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	next := name + suffix
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) { // of a writer that was killed
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode.Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(next))
		}
	}()
	if err := likeBefore(name, f, mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(next, name); err != nil {
		return err
	}
	_ = f.Close() // everything has been written
	if err := syncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("%s is written, but may be lost with the machine's power: %w", name, err)
	}
	return nil
}

// likeBefore gives the new file the mode and the owner of the old one.
func likeBefore(name string, f *os.File, mode os.FileMode) error {
	old, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return f.Chmod(mode.Perm()) // whatever the umask says
	}
	if err != nil {
		return err
	}
	if !old.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", name)
	}
	if err := chown(f, old); err != nil {
		return err
	}
	return f.Chmod(old.Mode().Perm())
}

// Clean removes what writers that were killed left in a directory.
func Clean(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), suffix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
