#!/bin/sh
# Twenty steps of gradient descent on (x - 1)^2 + 5 y^2. Usage: descent.sh --rate=R [--momentum=M]; see command.yaml.
rate=0.1 momentum=0
for argument; do
  case $argument in
    --rate=*) rate=${argument#*=} ;;
    --momentum=*) momentum=${argument#*=} ;;
    *) echo "unknown argument $argument" >&2; exit 2 ;;
  esac
done
awk -v rate="$rate" -v momentum="$momentum" 'BEGIN {
  x = -2; y = 1
  for (step = 1; step <= 20; step++) {
    vx = momentum * vx - rate * 2 * (x - 1); x += vx
    vy = momentum * vy - rate * 10 * y; y += vy
    printf "{\"step\": %d, \"loss\": %.9g}\n", step, (x - 1) ^ 2 + 5 * y ^ 2
    fflush()
    system("sleep 0.02")
  }
}' >> "$HPSTUDY_METRICS"
