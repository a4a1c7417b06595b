package command_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
)

// TestManyAtATime announces, leaves, finds and lists at the same time; the race detector
// and the directory's own check look for what goes wrong.
func TestManyAtATime(t *testing.T) {
	d := newDirectory(t, through("d1", "d2"), nil)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 100 {
				l := d.Attach(fmt.Sprint("A", n))
				for j := range 5 {
					announce(t, l, announcement{Set: [][6]any{row(fmt.Sprint("d", j), int64(i+n), 0, 1)}, Drop: [][2]any{{"T", fmt.Sprint("d", (j+2)%5)}},
						Via: [][3]any{{"T", "d3", "d2"}}})
				}
				l.Leave()
			}
		})
		wg.Go(func() {
			for i := range 300 {
				if _, err := d.Find(t.Context(), "T", iot.DeviceID(fmt.Sprint("d", i%6))); err != nil {
					t.Error(err)
				}
				d.List("T", "", 3)
				d.Changed("T", iot.DeviceID([]string{"", "d1"}[i%2]))
				if err := d.SetForeign("F", command.Row{Tenant: "T", Device: "d4", At: int64(i)}); err != nil {
					t.Error(err)
				}
				d.DropForeign("F", "T", "d4")
			}
		})
	}
	wg.Wait()
	d.ForgetForeign("F")
	if wrong := d.Check(); wrong != "" || d.Len() != 0 {
		t.Error(wrong, d.Len())
	}
}
