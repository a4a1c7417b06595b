package containers_test

import (
	"slices"
	"testing"
	"time"
)

// starts is how often each container is started for the figures.
const starts = 3

// TestImages says how large the images are.
func TestImages(t *testing.T) {
	cli := needEngine(t)
	for _, name := range []string{edgeImage, functionImage} {
		image, err := cli.ImageInspect(t.Context(), imageOf(name))
		if err != nil {
			t.Fatal(err)
		}
		if image.Config.User == "" || image.Config.User == "0" || image.Config.User == "root" {
			t.Errorf("%s runs as %q; want a user that is not root", name, image.Config.User)
		}
		measure(t, "image "+name, "%s", mb(uint64(image.Size)))
	}
}

// measureStarts stops each container and starts it again.
func (n *site) measureStarts(t *testing.T) {
	for _, b := range n.boxes() {
		var asked, own, ends []time.Duration
		for range starts {
			ends = append(ends, ms(b.stop(t)))
			took, err := b.begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ready := time.Now()
			state, err := b.State(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			began, err := time.Parse(time.RFC3339Nano, state.StartedAt)
			if err != nil {
				t.Fatal(err)
			}
			asked, own = append(asked, ms(took)), append(own, ms(ready.Sub(began)))
		}
		slices.Sort(asked)
		slices.Sort(own)
		slices.Sort(ends)
		measure(t, b.name+": engine asked to ready", "%v, of which the process has been there %v", asked, own)
		measure(t, b.name+": SIGTERM to the end", "%v", ends)
	}
}
