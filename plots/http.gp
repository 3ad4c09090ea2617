# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# http.gp - the HTTP table of "make bench" as bars: instructions a request, by server, kind of request
# and number of connections.
# gnuplot -e "csv='output/bench/http.csv'; out='http.png'" plots/http.gp
if (!exists("caption")) caption = ""
set label 1 caption noenhanced at screen 0.01, screen 0.035 font "sans,8" textcolor rgb "#666666"
set terminal pngcairo size 1100,620 font "sans,11"
set output out
set datafile separator ","
set title "Cost of an HTTP request (client, server and network stack together)" font "sans,14"
set ylabel "thousand instructions a request"
set xlabel "connections, and how they are used" offset 0,-1.2
set bmargin 7.5
set yrange [0:*]
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set boxwidth 0.9
set grid y back lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside top center horizontal samplen 1

# Rows of one server: connections and way as labels, its cost as the bar, none where it was refused.
cost(server) = sprintf("< awk -F, '$3 == \"%s\" { sub(\"a connection each\", \"one each\", $1); print $2 \"\\\\n\" $1 \",\" ($NF !~ /^\\r?$/ ? \"NaN\" : $5 / 1000) }' %s", \
	server, csv)
plot cost("nginx") using 2:xtic(1) lc rgb "#d55e00" title "nginx", \
     cost("nginx deferred") using 2 lc rgb "#a04000" title "nginx, listen deferred", \
     cost("user-http-server") using 2 lc rgb "#e69f00" title "user-http-server (epoll, no parser)", \
     cost("khttpd fastpath=1") using 2 lc rgb "#0072b2" title "khttpd", \
     cost("khttpd fastpath=0") using 2 lc rgb "#56b4e9" title "khttpd, worker only"
