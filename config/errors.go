package config

import (
	"fmt"
	"strings"
)

// Error is one thing that is wrong with a file.
type Error struct {
	// File is as it was given; Line and Column count from 1. Line is 0 if the file as a whole is meant.
	File         string
	Line, Column int
	// What says what is wrong and, behind a semicolon, what may have been meant.
	What string
}

// Error gives file:line:column: what.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.What)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.What)
}

// Errors is all that is wrong with a file, in the order of its lines.
type Errors []*Error

// Error gives one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, x := range e {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}
